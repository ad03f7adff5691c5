//! The last output of a command, numbered, so that a reader can begin again where it was cut off.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use pinfold_proto::{Kind, flow::MAX_DATA};

/// Bytes kept of each command. Beyond what a foreground command's reader has taken, which is never
/// dropped, this leaves at least half of it as history for what was taken and then lost further up.
pub const CAPACITY: usize = 2 << 20;
/// Pieces kept, so that single bytes cannot cost more than their number.
const MAX_PIECES: usize = 32 << 10;

#[derive(Debug)]
struct Piece {
    start: u64,
    kind: Kind,
    bytes: Bytes,
}

/// Output in the order it was read, both kinds together. Offsets count from the command's first
/// byte.
#[derive(Debug, Default)]
pub struct Ring {
    pieces: VecDeque<Piece>,
    /// The newest piece, still growing in its buffer while nobody has looked at it.
    tail: Option<(Kind, BytesMut)>,
    end: u64,
    held: usize,
}

impl Ring {
    /// Offset of the oldest byte held.
    pub fn start(&self) -> u64 {
        self.end - self.held as u64
    }

    /// Offset behind the newest byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Adds output, then drops the oldest beyond the capacity, but nothing from `keep` on.
    pub fn push(&mut self, kind: Kind, new: BytesMut, keep: u64) {
        if new.is_empty() {
            return;
        }
        self.end += new.len() as u64;
        self.held += new.len();
        self.tail = match self.tail.take() {
            // Neighbours in one buffer join without a copy.
            Some((old, mut tail))
                if old == kind
                    && tail.len() + new.len() <= MAX_DATA
                    && tail.as_ptr().wrapping_add(tail.len()) == new.as_ptr() =>
            {
                tail.unsplit(new);
                Some((kind, tail))
            }
            before => {
                let end = self.end - new.len() as u64;
                self.seal(before, end);
                Some((kind, new))
            }
        };
        while self.held > CAPACITY || self.pieces.len() > MAX_PIECES {
            match self.pieces.front() {
                Some(oldest) if oldest.start + oldest.bytes.len() as u64 <= keep => {
                    self.held -= oldest.bytes.len();
                    self.pieces.pop_front();
                }
                _ => return,
            }
        }
    }

    fn seal(&mut self, tail: Option<(Kind, BytesMut)>, end: u64) {
        if let Some((kind, bytes)) = tail {
            let start = end - bytes.len() as u64;
            self.pieces.push_back(Piece { start, kind, bytes: bytes.freeze() });
        }
    }

    /// The bytes from `offset` on that are of one kind and in one piece; `None` at the end. An
    /// offset that is no longer held gives the oldest: compare with [`Self::start`] first.
    pub fn from(&mut self, offset: u64) -> Option<(Kind, Bytes)> {
        if offset >= self.end {
            return None;
        }
        let tail = self.tail.take();
        self.seal(tail, self.end);
        let place = self.pieces.partition_point(|piece| piece.start <= offset).saturating_sub(1);
        let piece = self.pieces.get(place)?;
        let skip = usize::try_from(offset.saturating_sub(piece.start)).ok()?;
        (skip < piece.bytes.len()).then(|| (piece.kind, piece.bytes.slice(skip..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(ring: &mut Ring, mut offset: u64) -> Vec<(Kind, u8)> {
        let mut got = Vec::new();
        while let Some((kind, bytes)) = ring.from(offset) {
            offset += bytes.len() as u64;
            got.extend(bytes.iter().map(|byte| (kind, *byte)));
        }
        got
    }

    #[test]
    fn the_oldest_goes_first_and_never_what_must_be_kept() {
        let mut ring = Ring::default();
        let chunk = || BytesMut::from(&vec![7; CAPACITY / 4][..]);
        for _ in 0..6 {
            ring.push(Kind::Data1, chunk(), u64::MAX);
        }
        assert!(ring.held() <= CAPACITY);
        assert_eq!(ring.start() + ring.held() as u64, ring.end());
        let before = ring.start();
        for _ in 0..6 {
            ring.push(Kind::Data1, chunk(), before);
        }
        assert_eq!(ring.start(), before);
    }

    proptest! {
        /// Whatever is pushed, in whichever pieces, with looks in between: reading from any
        /// offset gives exactly the bytes that followed it.
        #[test]
        fn replay_is_exact_from_any_offset(
            pushes in prop::collection::vec((any::<bool>(), 1..60_usize, any::<bool>()), 1..40),
            from in 0..1000_u64,
        ) {
            let (mut ring, mut buffer, mut model) =
                (Ring::default(), BytesMut::with_capacity(512), Vec::new());
            for (stderr, length, look) in pushes {
                let kind = if stderr { Kind::Data2 } else { Kind::Data1 };
                for _ in 0..length {
                    let byte = u8::try_from(model.len() % 251).expect("below 256");
                    buffer.extend_from_slice(&[byte]);
                    model.push((kind, byte));
                }
                ring.push(kind, buffer.split(), u64::MAX);
                if look {
                    ring.from(ring.end() - 1);
                }
            }
            let from = from.min(model.len() as u64);
            let start = usize::try_from(from).expect("small");
            prop_assert_eq!(all(&mut ring, from), &model[start..]);
        }
    }
}
