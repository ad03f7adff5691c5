//! The guest as a whole: its state, and the hosts that dial it.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use pinfold_proto::{
    Decoder, GuestConfig, Hello, Kind, OLDEST_PROTOCOL, PROTOCOL, SendQueue, Welcome, frame,
    handshake::same_secret,
};
use pinfold_sys::signal::ChildSignals;
use pinfold_types::{BootSecret, Error, ErrorCode, WorkspaceId};
use tokio::{
    io::unix::AsyncFd,
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{channel::Channel, dispatch, exec};

/// Connections that have not shown the secret yet.
const MAX_STRANGERS: usize = 16;
/// How long they have to.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Everything the guest knows. Lives on one thread, behind an `Rc`.
#[derive(Debug)]
pub struct Guest {
    /// Whose guest this is.
    pub workspace: WorkspaceId,
    /// Which boot.
    pub boot: u64,
    /// The workspace's host name.
    pub hostname: String,
    /// Default directory of commands.
    pub cwd: Option<String>,
    /// Default user of commands.
    pub user: Option<String>,
    /// Environment of commands.
    pub environment: RefCell<exec::Environment>,
    /// Commands.
    pub execs: exec::Table,
    /// When it started.
    pub started: Instant,
    /// What keeps it alive longer than its commands.
    pub score: exec::OomScore,
    /// Set once it is told to end.
    pub stopping: Cell<bool>,
    /// Where programs inside find the server.
    pub api: Option<UnixListener>,
    secret: BootSecret,
    current: RefCell<Option<Channel>>,
    strangers: Cell<usize>,
}

/// Counts down when a stranger leaves.
struct Stranger<'a>(&'a Cell<usize>);

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Guest {
    /// A guest of this configuration.
    pub fn new(
        mut config: GuestConfig,
        score: exec::OomScore,
        api: Option<UnixListener>,
    ) -> Rc<Self> {
        Rc::new(Self {
            api,
            workspace: config.workspace,
            boot: config.boot,
            hostname: std::mem::take(&mut config.hostname),
            cwd: config.cwd.take(),
            user: config.user.take(),
            environment: RefCell::new(exec::Environment::new(
                std::mem::take(&mut config.env),
                config.api_token.take(),
            )),
            execs: exec::Table::default(),
            started: Instant::now(),
            score,
            stopping: Cell::new(false),
            secret: config.secret.0.clone(),
            current: RefCell::new(None),
            strangers: Cell::new(0),
        })
    }

    /// Takes connections for ever.
    pub async fn listen(self: Rc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((socket, _)) if self.strangers.get() < MAX_STRANGERS => {
                    self.strangers.set(self.strangers.get() + 1);
                    tokio::task::spawn_local(Rc::clone(&self).serve(socket));
                }
                // Too many at once: hang up at once.
                Ok(_) => {}
                // Out of descriptors or memory: later may be better.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Reaps every child that ends, ours or an orphan.
    pub async fn reap(self: Rc<Self>, signals: AsyncFd<ChildSignals>) {
        loop {
            self.execs.reap();
            match signals.readable().await {
                Ok(mut ready) => {
                    signals.get_ref().clear();
                    ready.clear_ready();
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn serve(self: Rc<Self>, socket: UnixStream) {
        let stranger = Stranger(&self.strangers);
        let greeted = timeout(HANDSHAKE, self.greet(&socket)).await;
        drop(stranger);
        let Ok(Ok(Some(received))) = greeted else { return };
        let channel = Channel::new(socket);
        if let Some(before) = self.current.borrow_mut().replace(channel.clone()) {
            before.close();
        }
        let guest = Rc::clone(&self);
        // Why it ended is the host's to log; nobody reads a log here.
        drop(
            channel
                .run(received, |stream, request| {
                    tokio::task::spawn_local(dispatch::serve(Rc::clone(&guest), stream, request));
                })
                .await,
        );
        self.current.borrow_mut().take_if(|current| current.is(&channel));
    }

    /// The handshake: the bytes that were received beyond it, or `None` for a stranger.
    async fn greet(&self, socket: &UnixStream) -> io::Result<Option<BytesMut>> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(1024));
        let frame = loop {
            match decoder.decode_within(&mut buffer, frame::MAX_HELLO) {
                Ok(Some(frame)) => break frame,
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
            socket.readable().await?;
            match socket.try_read_buf(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            buffer.reserve(256);
        };
        if (frame.stream, frame.kind) != (0, Kind::Message) {
            return Ok(None);
        }
        let Ok(hello) = serde_json::from_slice::<Hello>(&frame.payload) else { return Ok(None) };
        if !same_secret(&hello.secret.0, &self.secret) {
            return Ok(None);
        }
        // From here on the peer is our host, so it may know why not.
        let refusal = if (hello.workspace, hello.boot) != (self.workspace, self.boot) {
            Some(Error::new(
                ErrorCode::StaleBoot,
                format!("this is boot {} of {}", self.boot, self.workspace),
            ))
        } else if hello.protocol < OLDEST_PROTOCOL {
            Some(Error::new(
                ErrorCode::Unprocessable,
                format!("the guest speaks protocol {OLDEST_PROTOCOL} to {PROTOCOL}"),
            ))
        } else {
            None
        };
        let mut queue = SendQueue::default();
        // Both are short texts, below every limit.
        let _ = match &refusal {
            Some(error) => queue.push_message(0, Kind::Reset, error),
            None => queue.push_message(
                0,
                Kind::Message,
                &Welcome {
                    protocol: hello.protocol.min(PROTOCOL),
                    workspace: self.workspace,
                    boot: self.boot,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                },
            ),
        };
        let answer = queue.to_vec();
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            socket.writable().await?;
            match socket.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(refusal.is_none().then_some(buffer))
    }
}
