//! Writing messages.

use std::io::IoSlice;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use super::{
    BoxWrite, MAX_CONTROL_BYTES, MAX_DATA_BYTES, Role, WsError,
    frame::{Opcode, apply_mask, encode_header},
};
use crate::streams::bounds::Pulse;

/// The sending half. Each call returns when the kernel has taken the whole message, so that a
/// slow reader slows the sender.
pub struct Sender {
    write: BoxWrite,
    role: Role,
    head: Vec<u8>,
    masked: BytesMut,
    masks: u32,
    pulse: Option<Pulse>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender over the writing half of an upgraded connection.
    pub fn new(write: BoxWrite, role: Role) -> Self {
        // The mask keeps scripts in browsers from confusing proxies; here no script chooses what
        // is sent, so a sequence that differs per connection is enough.
        let [.., a, b, c, d] = *uuid::Uuid::now_v7().as_bytes();
        let masks = u32::from_ne_bytes([a, b, c, d]);
        Self {
            write,
            role,
            head: Vec::with_capacity(16),
            masked: BytesMut::new(),
            masks,
            pulse: None,
        }
    }

    /// Notes on this pulse when something was sent.
    pub(crate) fn watch(&mut self, pulse: Pulse) {
        self.pulse = Some(pulse);
    }

    /// Sends a text message.
    pub async fn text(&mut self, text: String) -> Result<(), WsError> {
        self.send(Opcode::Text, None, Bytes::from(text)).await
    }

    /// Sends bytes as binary messages of at most [`MAX_DATA_BYTES`] each, every one with the byte
    /// `tag` in front where given.
    pub async fn binary(&mut self, tag: Option<u8>, mut data: Bytes) -> Result<(), WsError> {
        while data.len() > MAX_DATA_BYTES {
            let part = data.split_to(MAX_DATA_BYTES);
            self.send(Opcode::Binary, tag, part).await?;
        }
        self.send(Opcode::Binary, tag, data).await
    }

    /// Answers a ping.
    pub async fn pong(&mut self, payload: Bytes) -> Result<(), WsError> {
        self.send(Opcode::Pong, None, payload).await
    }

    /// Asks whether the peer is there.
    pub async fn ping(&mut self) -> Result<(), WsError> {
        self.send(Opcode::Ping, None, Bytes::new()).await
    }

    /// Says that nothing more comes.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), WsError> {
        let mut payload = code.to_be_bytes().to_vec();
        let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        self.send(Opcode::Close, None, Bytes::from(payload)).await?;
        self.write.shutdown().await?;
        Ok(())
    }

    async fn send(
        &mut self,
        opcode: Opcode,
        tag: Option<u8>,
        payload: Bytes,
    ) -> Result<(), WsError> {
        let length = payload.len() + usize::from(tag.is_some());
        self.head.clear();
        match self.role {
            Role::Server => {
                encode_header(opcode, length, None, &mut self.head);
                self.head.extend(tag);
                self.write_both(&payload).await?;
            }
            Role::Client => {
                self.masks = self.masks.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
                let mask = self.masks.to_ne_bytes();
                encode_header(opcode, length, Some(mask), &mut self.head);
                self.masked.clear();
                self.masked.extend_from_slice(&self.head);
                let start = self.masked.len();
                self.masked.extend(tag);
                self.masked.extend_from_slice(&payload);
                apply_mask(&mut self.masked[start..], mask);
                self.write.write_all(&self.masked).await?;
            }
        }
        if let (Some(pulse), false) = (&self.pulse, opcode.is_control()) {
            pulse.beat();
        }
        Ok(())
    }

    async fn write_both(&mut self, payload: &[u8]) -> Result<(), WsError> {
        let (mut head, mut body) = (self.head.as_slice(), payload);
        while !head.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let count = self.write.write_vectored(&parts).await?;
            if count == 0 {
                return Err(WsError::Ended);
            }
            let of_head = count.min(head.len());
            head = &head[of_head..];
            body = &body[count - of_head..];
        }
        self.write.write_all(body).await?;
        Ok(())
    }
}
