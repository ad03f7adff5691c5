//! Frames on their way out: headers and payloads side by side for `writev`, payloads uncopied.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::{
    FrameError, Kind,
    frame::{HEADER_BYTES, MAX_JSON, MAX_PAYLOAD, header},
};

/// Payloads up to this size are copied behind their header: cheaper than one more `iovec`.
const COPY_BELOW: usize = 2048;

/// A queue of encoded bytes. It does not bound itself: callers ask [`SendQueue::len`] before they
/// add data, and replies are bounded by the requests.
#[derive(Debug, Default)]
pub struct SendQueue {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl SendQueue {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// Adds one frame with a payload of at most [`MAX_PAYLOAD`] bytes. Longer data is split.
    pub fn push_data(&mut self, stream: u32, kind: Kind, mut payload: Bytes) {
        loop {
            let piece = payload.split_to(payload.len().min(MAX_PAYLOAD));
            self.bytes += HEADER_BYTES + piece.len();
            self.tail.put_slice(&header(piece.len(), stream, kind));
            if piece.len() <= COPY_BELOW {
                self.tail.put_slice(&piece);
            } else {
                self.seal();
                self.pieces.push_back(piece);
            }
            if payload.is_empty() {
                return;
            }
        }
    }

    /// Adds a JSON text, in parts where one frame is too small.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] above [`MAX_JSON`]; nothing is added then.
    pub fn push_json(&mut self, stream: u32, kind: Kind, text: &[u8]) -> Result<(), FrameError> {
        if text.len() > MAX_JSON {
            return Err(FrameError::TooLong { length: text.len(), limit: MAX_JSON });
        }
        let mut rest = text;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            let kind = if later.is_empty() { kind } else { Kind::Part };
            self.tail.put_slice(&header(now.len(), stream, kind));
            self.tail.put_slice(now);
            self.bytes += HEADER_BYTES + now.len();
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Adds a message as JSON.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] above [`MAX_JSON`]; nothing is added then.
    pub fn push_message(
        &mut self,
        stream: u32,
        kind: Kind,
        message: &impl Serialize,
    ) -> Result<(), FrameError> {
        // None of our types has a map with keys that are not text, the only way this fails.
        let text = serde_json::to_vec(message).unwrap_or_default();
        self.push_json(stream, kind, &text)
    }

    /// Gives credit back.
    pub fn push_window(&mut self, stream: u32, amount: u32) {
        self.push_data(stream, Kind::Window, Bytes::copy_from_slice(&amount.to_be_bytes()));
    }

    /// Fills `slices` with what comes next, for a vectored write; how many were filled.
    pub fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        self.seal();
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Drops `written` bytes from the front.
    pub fn advance(&mut self, mut written: usize) {
        self.seal();
        self.bytes = self.bytes.saturating_sub(written);
        while written > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            let now = written.min(front.len());
            front.advance(now);
            written -= now;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.bytes == 0 {
            self.pieces.shrink_to(64);
            self.tail = BytesMut::new();
        }
    }

    /// Everything that waits, copied. For tests and for the handshake.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = self.pieces.iter().fold(Vec::new(), |mut all, piece| {
            all.extend_from_slice(piece);
            all
        });
        all.extend_from_slice(&self.tail);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn partial_writes_lose_nothing(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6000), 1..10),
            steps in prop::collection::vec(1..5000_usize, 1..5),
        ) {
            let mut queue = SendQueue::default();
            for (place, payload) in payloads.iter().enumerate() {
                let stream = u32::try_from(place).expect("few");
                queue.push_data(stream, Kind::Data1, Bytes::from(payload.clone()));
            }
            let whole = queue.to_vec();
            prop_assert_eq!(queue.len(), whole.len());
            let mut written = Vec::new();
            let mut steps = steps.iter().cycle();
            while !queue.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let filled = queue.slices(&mut slices);
                let flat: Vec<u8> =
                    slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                let now = (*steps.next().expect("cycles")).min(flat.len());
                written.extend_from_slice(&flat[..now]);
                queue.advance(now);
            }
            prop_assert_eq!(written, whole);
        }
    }
}
