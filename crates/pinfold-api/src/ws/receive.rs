//! Reading messages.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::{
    BoxRead, MAX_EMPTY_PER_SECOND, MAX_MESSAGE_BYTES, Role, WsError,
    frame::{Header, Opcode, apply_mask, decode_header},
};
use crate::streams::bounds::Pulse;

/// Bytes asked of the kernel at a time while no frame says more.
const READ_BYTES: usize = 64 << 10;

/// What a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8, checked.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// Must be answered with a pong of the same payload.
    Ping(Bytes),
    /// Answer to a ping.
    Pong,
    /// The peer is done: code and reason, where given.
    Close(Option<u16>, String),
}

/// The receiving half. Messages are complete and within [`MAX_MESSAGE_BYTES`].
pub struct Receiver {
    read: BoxRead,
    role: Role,
    buffer: BytesMut,
    partial: Option<(Opcode, BytesMut)>,
    most: usize,
    empty: Empty,
    pulse: Option<Pulse>,
}

/// Frames that carried nothing in the present second.
#[derive(Debug)]
struct Empty {
    since: Instant,
    count: u32,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Receiver {
    /// `already` holds bytes that were read past the handshake.
    pub fn new(read: BoxRead, role: Role, already: &[u8]) -> Self {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        buffer.extend_from_slice(already);
        Self {
            read,
            role,
            buffer,
            partial: None,
            most: MAX_MESSAGE_BYTES,
            empty: Empty { since: Instant::now(), count: 0 },
            pulse: None,
        }
    }

    /// Takes messages of at most this many bytes from now on, instead of [`MAX_MESSAGE_BYTES`].
    pub fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// Notes on this pulse when something came.
    pub(crate) fn watch(&mut self, pulse: Pulse) {
        self.pulse = Some(pulse);
    }

    /// The next message. After an error or a close nothing more comes.
    ///
    /// Cancel safe: a partly read frame stays buffered.
    pub async fn next(&mut self) -> Result<Message, WsError> {
        loop {
            let (header, used) = loop {
                if let Some(found) = decode_header(&self.buffer, self.role, self.most)? {
                    break found;
                }
                self.fill(READ_BYTES).await?;
            };
            let whole = used + header.length;
            while self.buffer.len() < whole {
                self.fill((whole - self.buffer.len()).max(READ_BYTES)).await?;
            }
            self.buffer.advance(used);
            let mut payload = self.buffer.split_to(header.length);
            if let Some(mask) = header.mask {
                apply_mask(&mut payload, mask);
            }
            if let Some(message) = self.accept(header, payload)? {
                return Ok(message);
            }
        }
    }

    /// A flood of them would cost work and carry nothing.
    fn count_empty(&mut self) -> Result<(), WsError> {
        if self.empty.since.elapsed() >= Duration::from_secs(1) {
            self.empty = Empty { since: Instant::now(), count: 0 };
        }
        self.empty.count += 1;
        if self.empty.count > MAX_EMPTY_PER_SECOND { Err(WsError::TooMany) } else { Ok(()) }
    }

    async fn fill(&mut self, want: usize) -> Result<(), WsError> {
        self.buffer.reserve(want);
        match self.read.read_buf(&mut self.buffer).await? {
            0 => Err(WsError::Ended),
            _ => Ok(()),
        }
    }

    fn accept(&mut self, header: Header, payload: BytesMut) -> Result<Option<Message>, WsError> {
        if header.opcode.is_control() || header.length == 0 {
            self.count_empty()?;
        }
        if let (Some(pulse), false) = (&self.pulse, header.opcode.is_control()) {
            pulse.beat();
        }
        match (header.opcode, self.partial.take()) {
            (Opcode::Ping, partial) => {
                self.partial = partial;
                Ok(Some(Message::Ping(payload.freeze())))
            }
            (Opcode::Pong, partial) => {
                self.partial = partial;
                Ok(Some(Message::Pong))
            }
            (Opcode::Close, _) => close(&payload).map(Some),
            (Opcode::Continuation, None) => {
                Err(WsError::Protocol("a continuation without a beginning"))
            }
            (Opcode::Continuation, Some((opcode, mut sofar))) => {
                if sofar.len() + payload.len() > self.most {
                    return Err(WsError::TooLarge);
                }
                sofar.extend_from_slice(&payload);
                if header.fin {
                    return finish(opcode, sofar).map(Some);
                }
                self.partial = Some((opcode, sofar));
                Ok(None)
            }
            (_, Some(_)) => Err(WsError::Protocol("a new message inside a fragmented one")),
            (opcode, None) if header.fin => finish(opcode, payload).map(Some),
            (opcode, None) => {
                self.partial = Some((opcode, payload));
                Ok(None)
            }
        }
    }
}

fn finish(opcode: Opcode, payload: BytesMut) -> Result<Message, WsError> {
    if opcode == Opcode::Binary {
        return Ok(Message::Binary(payload.freeze()));
    }
    let text = String::from_utf8(payload.to_vec())
        .map_err(|_| WsError::Protocol("text that is not UTF-8"))?;
    Ok(Message::Text(text))
}

fn close(payload: &[u8]) -> Result<Message, WsError> {
    match payload.split_first_chunk::<2>() {
        None if payload.is_empty() => Ok(Message::Close(None, String::new())),
        None => Err(WsError::Protocol("a close frame of one byte")),
        Some((code, reason)) => {
            let reason = std::str::from_utf8(reason)
                .map_err(|_| WsError::Protocol("a close reason that is not UTF-8"))?;
            Ok(Message::Close(Some(u16::from_be_bytes(*code)), reason.to_owned()))
        }
    }
}
