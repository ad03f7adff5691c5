//! The socket's two tasks, and the table of open calls.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use pinfold_proto::{Decoder, Frame, FrameError, Kind, Request, SendQueue, flow};
use pinfold_types::{Error, ErrorCode};
use tokio::{
    net::UnixStream,
    sync::{Notify, watch},
};

use super::call::{Call, CallState};

/// Data waits while this much is on its way to the socket.
const QUEUE_BYTES: usize = 1 << 20;
/// Beyond this the guest asks without reading the answers.
const ABSURD_BYTES: usize = 64 << 20;
/// Receive buffer of a quiet guest, and of a busy one.
const QUIET_BYTES: usize = 4 << 10;
const BUSY_BYTES: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    queue: Mutex<SendQueue>,
    /// Bytes in `queue` and with the writing task.
    outgoing: AtomicUsize,
    queued: Notify,
    blocked: Mutex<Vec<Waker>>,
    calls: Mutex<Calls>,
    closed: watch::Sender<bool>,
}

/// Whoever uses a connection holds one of these; when the last is dropped it ends.
#[derive(Debug)]
pub(super) struct Users(Arc<Link>);

impl Deref for Users {
    type Target = Arc<Link>;

    fn deref(&self) -> &Arc<Link> {
        &self.0
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.0.close(&Error::new(ErrorCode::Cancelled, "the connection was given up"));
    }
}

#[derive(Debug, Default)]
struct Calls {
    open: HashMap<u32, Arc<CallState>>,
    newest: u32,
    /// Why the connection has ended, once it has.
    end: Option<Error>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("the socket was closed")]
    Closed,
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Order(&'static str),
}

impl LinkError {
    fn public(&self) -> Error {
        match self {
            Self::Closed | Self::Socket(_) => Error::new(
                ErrorCode::Unavailable,
                "the workspace stopped, or the connection to it was lost",
            )
            .hint("`pinfold info` shows its state and why"),
            Self::Frame(_) | Self::Order(_) => Error::new(
                ErrorCode::Upstream,
                "the workspace's guest broke the protocol and was cut off",
            )
            .hint("stop and start the workspace"),
        }
        .context(self)
    }
}

/// Sends a request and opens its stream.
pub(super) async fn open(link: &Arc<Users>, request: &Request) -> Result<Call, Error> {
    // Nothing in a request has map keys that are not text.
    let text = serde_json::to_vec(request).map_err(Error::internal)?;
    std::future::poll_fn(|context| link.poll_room(context)).await;
    let mut calls = locked(&link.calls);
    if let Some(error) = &calls.end {
        return Err(error.clone());
    }
    let id = calls.newest.checked_add(if calls.newest == 0 { 1 } else { 2 });
    let Some(id) = id else {
        // Two thousand million calls: dial again.
        drop(calls);
        link.close(&LinkError::Order("all stream numbers are used").public());
        return Err(LinkError::Closed.public());
    };
    {
        // Still under the lock of the table: ids must rise on the wire too.
        let mut queue = locked(&link.queue);
        let before = queue.len();
        queue.push_json(id, Kind::Open, &text).map_err(|error| {
            Error::new(ErrorCode::TooLarge, format!("the request is too long: {error}"))
        })?;
        link.outgoing.fetch_add(queue.len() - before, Ordering::Relaxed);
    }
    calls.newest = id;
    let state = Arc::<CallState>::default();
    calls.open.insert(id, Arc::clone(&state));
    drop(calls);
    link.queued.notify_one();
    Ok(Call::new(Arc::clone(link), id, state))
}

impl Link {
    /// Starts both tasks over a socket that has been through the handshake.
    pub(super) fn start(socket: UnixStream, received: BytesMut) -> Arc<Users> {
        let link = Arc::new(Self {
            queue: Mutex::default(),
            outgoing: AtomicUsize::new(0),
            queued: Notify::new(),
            blocked: Mutex::default(),
            calls: Mutex::default(),
            closed: watch::Sender::new(false),
        });
        let socket = Arc::new(socket);
        let run = |link: Arc<Self>, received: Option<BytesMut>| {
            let socket = Arc::clone(&socket);
            let mut closed = link.closed.subscribe();
            async move {
                let work = async {
                    match received {
                        Some(received) => link.read(&socket, received).await,
                        None => link.write(&socket).await,
                    }
                };
                tokio::select! {
                    error = work => link.close(&error.public()),
                    // The other task, or the last handle, ended it.
                    _ = closed.wait_for(|closed| *closed) => {}
                }
            }
        };
        tokio::spawn(run(Arc::clone(&link), Some(received)));
        tokio::spawn(run(Arc::clone(&link), None));
        Arc::new(Users(link))
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(super) async fn closed(&self) {
        // The sender is ours, so this cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn close(&self, error: &Error) {
        let open = {
            let mut calls = locked(&self.calls);
            calls.end.get_or_insert_with(|| error.clone());
            std::mem::take(&mut calls.open)
        };
        // First, so that whoever hears of it from its call finds the connection closed.
        self.closed.send_replace(true);
        for call in open.into_values() {
            call.fail(error.clone());
        }
        self.wake_blocked();
    }

    fn wake_blocked(&self) {
        for waker in std::mem::take(&mut *locked(&self.blocked)) {
            waker.wake();
        }
    }

    /// Ready when the queue has room for more data, or the connection has ended.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let fine = || {
            self.outgoing.load(Ordering::Acquire) + flow::MAX_DATA <= QUEUE_BYTES
                || self.is_closed()
        };
        if fine() {
            return Poll::Ready(());
        }
        locked(&self.blocked).push(context.waker().clone());
        // The queue may have emptied before the waker was there.
        if fine() { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn push_data(&self, stream: u32, kind: Kind, payload: Bytes) {
        self.push(|queue| queue.push_data(stream, kind, payload));
    }

    pub(super) fn push_window(&self, stream: u32, amount: u32) {
        self.push(|queue| queue.push_window(stream, amount));
    }

    pub(super) fn push_text(&self, stream: u32, kind: Kind, text: &[u8]) {
        self.push(|queue| {
            // Only our own short messages come here.
            let _ = queue.push_json(stream, kind, text);
        });
    }

    fn push(&self, add: impl FnOnce(&mut SendQueue)) {
        if self.is_closed() {
            return;
        }
        let mut queue = locked(&self.queue);
        let before = queue.len();
        add(&mut queue);
        self.outgoing.fetch_add(queue.len() - before, Ordering::Relaxed);
        drop(queue);
        self.queued.notify_one();
    }

    /// The caller has no more use for a call.
    pub(super) fn forget(&self, id: u32) {
        if locked(&self.calls).open.remove(&id).is_some() {
            self.push_data(id, Kind::Reset, Bytes::new());
        }
    }

    async fn write(&self, socket: &UnixStream) -> LinkError {
        let mut sending = SendQueue::default();
        loop {
            if sending.is_empty() {
                sending = std::mem::take(&mut *locked(&self.queue));
                if sending.is_empty() {
                    self.queued.notified().await;
                    continue;
                }
            }
            let mut slices = [IoSlice::new(&[]); 32];
            let filled = sending.slices(&mut slices);
            match socket.try_write_vectored(&slices[..filled]) {
                Ok(written) => {
                    sending.advance(written);
                    self.outgoing.fetch_sub(written, Ordering::Release);
                    self.wake_blocked();
                    tokio::task::consume_budget().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = socket.writable().await {
                        return error.into();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The reader may still find what the guest said last.
                Err(_) => return std::future::pending().await,
            }
        }
    }

    async fn read(&self, socket: &UnixStream, mut buffer: BytesMut) -> LinkError {
        let mut decoder = Decoder::default();
        let mut size = QUIET_BYTES;
        loop {
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => {
                        if let Err(error) = self.take(frame) {
                            return error;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.into(),
                }
            }
            let wanted = Decoder::wanted(&buffer).saturating_sub(buffer.len());
            if buffer.capacity() - buffer.len() < wanted.max(size / 4) {
                buffer.reserve(wanted.max(size));
            }
            match socket.try_read_buf(&mut buffer) {
                Ok(0) => return LinkError::Closed,
                Ok(n) => {
                    if n >= size / 2 {
                        size = (size * 2).min(BUSY_BYTES);
                    }
                    tokio::task::consume_budget().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if buffer.is_empty() {
                        // A quiet guest keeps no buffer at all.
                        size = QUIET_BYTES;
                        buffer = BytesMut::new();
                    }
                    if let Err(error) = socket.readable().await {
                        return error.into();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.into(),
            }
        }
    }

    fn take(&self, Frame { stream: id, kind, payload }: Frame) -> Result<(), LinkError> {
        if self.outgoing.load(Ordering::Relaxed) > ABSURD_BYTES {
            return Err(LinkError::Order("it asks without reading the answers"));
        }
        match (id, kind) {
            (0, Kind::Ping) => self.push_data(0, Kind::Pong, payload),
            (0, Kind::Pong | Kind::Reset) => {}
            (0, _) => return Err(LinkError::Order("a frame without a stream")),
            // Room for outbound connections, which this server does not make.
            (id, Kind::Open) if id % 2 == 0 => {
                let refused = Error::new(ErrorCode::EgressDenied, "this workspace is offline");
                self.push_text(id, Kind::Reset, &serde_json::to_vec(&refused).unwrap_or_default());
            }
            (id, kind) => {
                let ends = matches!(kind, Kind::Close | Kind::Reset);
                let call = {
                    let mut calls = locked(&self.calls);
                    if id % 2 == 1 && id > calls.newest {
                        return Err(LinkError::Order("a frame of a stream that was never opened"));
                    }
                    if ends { calls.open.remove(&id) } else { calls.open.get(&id).cloned() }
                };
                if let Some(call) = call {
                    call.take(id, kind, payload).map_err(|fault| match fault {
                        super::call::Fault::Frame(error) => LinkError::Frame(error),
                        super::call::Fault::Order(why) => LinkError::Order(why),
                    })?;
                }
            }
        }
        Ok(())
    }
}
