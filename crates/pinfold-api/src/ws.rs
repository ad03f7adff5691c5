//! WebSocket framing (RFC 6455), for both ends.
//!
//! Written here because output streams pass through it at memory speed: a payload is written
//! from where it lies, with its header, in one `writev`, and read straight into the buffer that
//! is handed on. What it refuses: extensions, wrong masking, oversized or malformed control
//! frames, messages over [`MAX_MESSAGE_BYTES`], text that is not UTF-8.

mod frame;
mod handshake;
mod receive;
mod send;

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    frame::{Header, Opcode, decode_header, encode_header},
    handshake::{accept_key, new_key},
    receive::{Message, Receiver},
    send::Sender,
};

/// Most bytes of one message, fragments together: 256 KiB of data and a little room.
pub const MAX_MESSAGE_BYTES: usize = (256 << 10) + 64;
/// Most bytes of data that a sender puts into one message.
pub const MAX_DATA_BYTES: usize = 256 << 10;
/// Most bytes of a control frame's payload (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// Most frames that carry nothing (pings, pongs, empty ones) in a second. Others are taken as fast
/// as what they carry is.
pub const MAX_EMPTY_PER_SECOND: u32 = 200;

/// The reading half of a connection.
pub type BoxRead = Pin<Box<dyn AsyncRead + Send>>;
/// The writing half of a connection.
pub type BoxWrite = Pin<Box<dyn AsyncWrite + Send>>;

/// Which end we are: a client masks what it sends, a server does not (RFC 6455 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opened the connection.
    Client,
    /// Accepted it.
    Server,
}

/// Why a stream of frames ended.
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// The peer broke RFC 6455; the connection is closed with code 1002.
    #[error("the peer sent a malformed frame: {0}")]
    Protocol(&'static str),
    /// A message is over the limit; the connection is closed with code 1009.
    #[error("a message is larger than is taken")]
    TooLarge,
    /// Too many frames that carry nothing; the connection is closed with code 1008.
    #[error("more than {MAX_EMPTY_PER_SECOND} pings, pongs and empty frames came in a second")]
    TooMany,
    /// The connection ended without a close frame.
    #[error("the connection ended")]
    Ended,
    /// Reading or writing failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

impl WsError {
    /// The close code that tells the peer (RFC 6455 §7.4.1).
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::TooLarge => 1009,
            Self::TooMany => 1008,
            Self::Ended | Self::Io(_) => 1006,
        }
    }
}
