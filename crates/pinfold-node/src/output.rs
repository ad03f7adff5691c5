//! The last output of a workspace's start-up command, for `pinfold logs`.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pinfold_types::ExecId;
use tokio::sync::watch;

/// Most bytes kept of one workspace's start-up output.
pub const OUTPUT_TAIL_BYTES: usize = 64 << 10;

/// A ring that grows to [`OUTPUT_TAIL_BYTES`] and then forgets the oldest.
#[derive(Debug, Default)]
pub(crate) struct OutputTail {
    tail: Mutex<Tail>,
    /// It has said something, or will not.
    spoken: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    lost_bytes: u64,
    exec: Option<ExecId>,
}

/// What is kept of a command's output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
    /// Bytes before these.
    pub(crate) lost_bytes: u64,
    pub(crate) exec: Option<ExecId>,
}

impl OutputTail {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The output of `exec` comes from `offset` on. Where it goes on from is kept, and anything
    /// else forgotten.
    pub(crate) fn begin(&self, exec: ExecId, offset: u64) {
        let mut tail = self.tail();
        let goes_on = tail.exec == Some(exec) && tail.end() == offset;
        if !goes_on {
            *tail = Tail { lost_bytes: offset, exec: Some(exec), ..Tail::default() };
        }
    }

    /// Where the output of `exec` goes on, when some of it came already.
    pub(crate) fn end_of(&self, exec: ExecId) -> Option<u64> {
        let tail = self.tail();
        (tail.exec == Some(exec)).then(|| tail.end())
    }

    /// Adds output at the end.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut tail = self.tail();
        let kept = &bytes[bytes.len().saturating_sub(OUTPUT_TAIL_BYTES)..];
        let over = (tail.bytes.len() + kept.len()).saturating_sub(OUTPUT_TAIL_BYTES);
        let lost = over + (bytes.len() - kept.len());
        tail.lost_bytes += u64::try_from(lost).expect("a usize fits");
        tail.bytes.drain(..over);
        tail.bytes.extend(kept);
        drop(tail);
        self.spoken.send_replace(true);
    }

    /// No more comes.
    pub(crate) fn ended(&self) {
        self.spoken.send_replace(true);
    }

    /// Waits until there is some output, or will be none.
    pub(crate) async fn spoken(&self) {
        // The sender is ours, so this cannot fail.
        let _ = self.spoken.subscribe().wait_for(|spoken| *spoken).await;
    }

    /// Forgets everything: a new boot begins.
    pub(crate) fn clear(&self) {
        *self.tail() = Tail::default();
        self.spoken.send_replace(false);
    }

    /// What is kept.
    pub(crate) fn read(&self) -> Kept {
        let tail = self.tail();
        Kept {
            bytes: tail.bytes.iter().copied().collect(),
            lost_bytes: tail.lost_bytes,
            exec: tail.exec,
        }
    }
}

impl Tail {
    fn end(&self) -> u64 {
        self.lost_bytes + u64::try_from(self.bytes.len()).expect("a usize fits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_loss_is_counted() {
        let tail = OutputTail::default();
        let read = || {
            let Kept { bytes, lost_bytes, .. } = tail.read();
            (bytes, lost_bytes)
        };
        tail.push(b"abc");
        assert_eq!(read(), (b"abc".to_vec(), 0));
        tail.push(&vec![b'x'; OUTPUT_TAIL_BYTES - 1]);
        let (bytes, lost) = read();
        assert_eq!((bytes.len(), bytes[0], lost), (OUTPUT_TAIL_BYTES, b'c', 2));
        tail.push(&vec![b'y'; OUTPUT_TAIL_BYTES + 5]);
        let (bytes, lost) = read();
        assert!(bytes.iter().all(|b| *b == b'y'));
        assert_eq!(lost, 2 + 5 + u64::try_from(OUTPUT_TAIL_BYTES).expect("fits"));
        tail.clear();
        assert_eq!(read(), (Vec::new(), 0));
    }

    #[test]
    fn a_command_goes_on_where_it_was_and_another_begins_anew() {
        let tail = OutputTail::default();
        let (one, two) = (ExecId::generate(), ExecId::generate());
        tail.begin(one, 3);
        tail.push(b"abc");
        assert_eq!((tail.end_of(one), tail.end_of(two)), (Some(6), None));
        tail.begin(one, 6);
        tail.push(b"d");
        assert_eq!(tail.read(), Kept { bytes: b"abcd".to_vec(), lost_bytes: 3, exec: Some(one) });
        tail.begin(one, 9);
        assert_eq!(tail.read(), Kept { bytes: Vec::new(), lost_bytes: 9, exec: Some(one) });
        tail.begin(two, 0);
        assert_eq!(tail.end_of(two), Some(0));
    }
}
