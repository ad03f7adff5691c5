//! One connection of a host: frames in, frames out, streams between.
//!
//! Everything runs on one thread, so a condition that was just checked still holds when the wait
//! for its change begins.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io::{self, IoSlice},
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use pinfold_proto::{Decoder, Frame, FrameError, Kind, SendQueue, flow, frame};
use pinfold_types::{Error, ErrorCode};
use serde::Serialize;
use tokio::{net::UnixStream, sync::Notify};

mod stream;

use stream::StreamState;
pub use stream::{Gone, Incoming, Stream};

/// Most open streams of one connection.
pub const MAX_STREAMS: usize = 2048;
/// Data waits while this much is queued for the socket.
const QUEUE_BYTES: usize = 1 << 20;
/// What the kernel may hold of one direction: two large frames and what they cost it beside, so
/// that one side fills while the other empties.
const SEND_BYTES: usize = 512 << 10;
/// Receive buffer of a quiet connection, and of a busy one.
const QUIET_BYTES: usize = 8 << 10;
const BUSY_BYTES: usize = 512 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    /// The peer does not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Well-formed frames in an order that makes no sense.
    #[error("the peer broke the protocol: {0}")]
    Order(&'static str),
}

/// A connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Channel(Rc<State>);

#[derive(Debug)]
struct State {
    socket: UnixStream,
    queue: RefCell<SendQueue>,
    queued: Notify,
    room: Notify,
    streams: RefCell<HashMap<u32, Rc<StreamState>>>,
    newest: Cell<u32>,
    closed: Cell<bool>,
    ended: Notify,
}

impl Channel {
    /// A connection over `socket`, not running yet.
    pub fn new(socket: UnixStream) -> Self {
        // Less than it asks for, or the usual size, is slower and nothing else.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES);
        Self(Rc::new(State {
            socket,
            queue: RefCell::default(),
            queued: Notify::new(),
            room: Notify::new(),
            streams: RefCell::default(),
            newest: Cell::new(0),
            closed: Cell::new(false),
            ended: Notify::new(),
        }))
    }

    /// Ends the connection and every stream on it.
    pub fn close(&self) {
        if self.0.closed.replace(true) {
            return;
        }
        for (_, stream) in self.0.streams.borrow_mut().drain() {
            stream.end();
        }
        // Whoever still holds a stream holds the socket; the peer shall not wait for them.
        let _ = rustix::net::shutdown(&self.0.socket, rustix::net::Shutdown::Both);
        self.0.ended.notify_waiters();
        self.0.room.notify_waiters();
        self.0.queued.notify_waiters();
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Reads and writes until the connection ends; `open` gets each new stream with its request.
    ///
    /// # Errors
    /// Why it ended, unless the peer hung up.
    pub async fn run(
        &self,
        received: BytesMut,
        open: impl FnMut(Stream, Bytes),
    ) -> Result<(), ChannelError> {
        let result = tokio::select! {
            result = self.read(received, open) => result,
            result = self.write() => result.map_err(ChannelError::from),
            () = self.ended() => Ok(()),
        };
        self.close();
        result
    }

    async fn ended(&self) {
        if !self.is_closed() {
            self.0.ended.notified().await;
        }
    }

    /// Waits until everything queued is on the socket, or the connection ended.
    pub async fn flushed(&self) {
        while !self.is_closed() && !self.0.queue.borrow().is_empty() {
            self.0.room.notified().await;
        }
    }

    async fn write(&self) -> io::Result<()> {
        loop {
            if self.0.queue.borrow().is_empty() {
                self.0.queued.notified().await;
                continue;
            }
            let tried = {
                let mut queue = self.0.queue.borrow_mut();
                let mut slices = [IoSlice::new(&[]); 32];
                let filled = queue.slices(&mut slices);
                self.0.socket.try_write_vectored(slices.get(..filled).unwrap_or_default())
            };
            match tried {
                Ok(written) => {
                    self.0.queue.borrow_mut().advance(written);
                    self.0.room.notify_waiters();
                    // Lets readers and other streams in between two large writes.
                    if written >= QUEUE_BYTES / 4 {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.socket.writable().await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(
        &self,
        mut buffer: BytesMut,
        mut open: impl FnMut(Stream, Bytes),
    ) -> Result<(), ChannelError> {
        let mut decoder = Decoder::default();
        let mut size = QUIET_BYTES;
        loop {
            while let Some(frame) = decoder.decode(&mut buffer)? {
                self.take(frame, &mut open)?;
            }
            let wanted = Decoder::wanted(&buffer).saturating_sub(buffer.len());
            if buffer.capacity() - buffer.len() < wanted.max(size / 4) {
                buffer.reserve(wanted.max(size));
            }
            match self.0.socket.try_read_buf(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) if n >= size / 2 => size = (size * 2).min(BUSY_BYTES),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if buffer.is_empty() && size > QUIET_BYTES {
                        size = QUIET_BYTES;
                        buffer = BytesMut::new();
                    }
                    self.0.socket.readable().await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(
        &self,
        Frame { stream: id, kind, payload }: Frame,
        open: &mut impl FnMut(Stream, Bytes),
    ) -> Result<(), ChannelError> {
        if id == 0 {
            if kind == Kind::Ping {
                self.0.queue.borrow_mut().push_data(0, Kind::Pong, payload);
                self.0.queued.notify_waiters();
                if self.0.queue.borrow().len() > 2 * QUEUE_BYTES {
                    return Err(ChannelError::Order("pings without reading the answers"));
                }
            }
            return Ok(());
        }
        if kind == Kind::Open {
            return self.opened(id, payload, open);
        }
        let Some(stream) = self.0.streams.borrow().get(&id).cloned() else {
            // Of a stream that has ended, or of one of ours that the host refused.
            if !id.is_multiple_of(2) && id > self.0.newest.get() {
                return Err(ChannelError::Order("a frame of a stream that was never opened"));
            }
            return Ok(());
        };
        match kind {
            Kind::Data0 => stream.data(id, payload)?,
            Kind::Window => stream.credit(id, &payload)?,
            Kind::Message => stream.message(payload)?,
            Kind::Reset => {
                self.0.streams.borrow_mut().remove(&id);
                stream.end();
            }
            _ => return Err(ChannelError::Order("a frame that only guests send")),
        }
        Ok(())
    }

    fn opened(
        &self,
        id: u32,
        payload: Bytes,
        open: &mut impl FnMut(Stream, Bytes),
    ) -> Result<(), ChannelError> {
        if id.is_multiple_of(2) || id <= self.0.newest.get() {
            return Err(ChannelError::Order("a stream id that is not new"));
        }
        self.0.newest.set(id);
        if self.0.streams.borrow().len() >= MAX_STREAMS {
            let error = Error::new(
                ErrorCode::RateLimited,
                format!("the workspace has {MAX_STREAMS} open streams, the most it takes"),
            );
            self.push(id, Kind::Reset, &error);
            if self.0.queue.borrow().len() > 2 * QUEUE_BYTES {
                return Err(ChannelError::Order("requests without reading the answers"));
            }
            return Ok(());
        }
        let state = Rc::new(StreamState::default());
        self.0.streams.borrow_mut().insert(id, Rc::clone(&state));
        open(Stream::new(self.clone(), id, state), payload);
        Ok(())
    }

    fn push(&self, stream: u32, kind: Kind, message: &impl Serialize) {
        if self.is_closed() {
            return;
        }
        let mut queue = self.0.queue.borrow_mut();
        if queue.push_message(stream, kind, message).is_err() {
            let error = Error::new(
                ErrorCode::TooLarge,
                format!("the reply is longer than {} bytes", frame::MAX_JSON),
            );
            // A short text is below every limit.
            let _ = queue.push_message(stream, Kind::Reset, &error);
        }
        drop(queue);
        self.0.queued.notify_waiters();
    }

    fn push_data(&self, stream: u32, kind: Kind, payload: Bytes) {
        self.0.queue.borrow_mut().push_data(stream, kind, payload);
        self.0.queued.notify_waiters();
    }

    fn push_window(&self, stream: u32, amount: u32) {
        if !self.is_closed() {
            self.0.queue.borrow_mut().push_window(stream, amount);
            self.0.queued.notify_waiters();
        }
    }

    /// Waits until the queue has room for more data.
    async fn has_room(&self) {
        while !self.is_closed() && self.0.queue.borrow().len() + flow::MAX_DATA > QUEUE_BYTES {
            self.0.room.notified().await;
        }
    }

    fn forget(&self, id: u32) {
        self.0.streams.borrow_mut().remove(&id);
    }
}
