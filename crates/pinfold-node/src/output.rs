//! The last output of a workspace's start-up command, for `pinfold logs`.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Most bytes kept of one workspace's start-up output.
pub const OUTPUT_TAIL_BYTES: usize = 64 << 10;

/// A ring that grows to [`OUTPUT_TAIL_BYTES`] and then forgets the oldest.
#[derive(Debug, Default)]
pub(crate) struct OutputTail(Mutex<Tail>);

#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    lost_bytes: u64,
}

impl OutputTail {
    /// Adds output at the end.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &bytes[bytes.len().saturating_sub(OUTPUT_TAIL_BYTES)..];
        let over = (tail.bytes.len() + kept.len()).saturating_sub(OUTPUT_TAIL_BYTES);
        let lost = over + (bytes.len() - kept.len());
        tail.lost_bytes += u64::try_from(lost).expect("a usize fits");
        tail.bytes.drain(..over);
        tail.bytes.extend(kept);
    }

    /// Forgets everything: a new boot begins.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Tail::default();
    }

    /// What is kept, and how many bytes before it were forgotten.
    pub(crate) fn read(&self) -> (Vec<u8>, u64) {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (tail.bytes.iter().copied().collect(), tail.lost_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_loss_is_counted() {
        let tail = OutputTail::default();
        tail.push(b"abc");
        assert_eq!(tail.read(), (b"abc".to_vec(), 0));
        tail.push(&vec![b'x'; OUTPUT_TAIL_BYTES - 1]);
        let (bytes, lost) = tail.read();
        assert_eq!((bytes.len(), bytes[0], lost), (OUTPUT_TAIL_BYTES, b'c', 2));
        tail.push(&vec![b'y'; OUTPUT_TAIL_BYTES + 5]);
        let (bytes, lost) = tail.read();
        assert!(bytes.iter().all(|b| *b == b'y'));
        assert_eq!(lost, 2 + 5 + u64::try_from(OUTPUT_TAIL_BYTES).expect("fits"));
        tail.clear();
        assert_eq!(tail.read(), (Vec::new(), 0));
    }
}
