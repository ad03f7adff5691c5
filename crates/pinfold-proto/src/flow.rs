//! Credit: how many bytes may be on their way.

use crate::FrameError;

/// Credit of a new stream, in each direction.
pub const WINDOW: u32 = 1 << 20;
/// Charged for each data frame beside its bytes, so that tiny frames cannot pile up either.
pub const FRAME_COST: u32 = 64;
/// Largest payload a sender puts in one data frame: small enough that streams share the line.
pub const MAX_DATA: usize = 256 << 10;

/// What a data frame of this many bytes costs.
pub fn cost(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX).saturating_add(FRAME_COST)
}

/// The sender's side: what it may still send.
#[derive(Debug)]
pub struct Credit(u32);

impl Default for Credit {
    fn default() -> Self {
        Self(WINDOW)
    }
}

impl Credit {
    /// How many bytes one frame may carry now, at most [`MAX_DATA`]; `None` when even one byte
    /// must wait. Waits for a useful amount (16 KiB) unless that is all the window has room for.
    pub fn room(&self, wanted: usize) -> Option<usize> {
        let room = self.0.checked_sub(FRAME_COST)? as usize;
        let give = wanted.min(room).min(MAX_DATA);
        (give == wanted || give >= 16 << 10).then_some(give)
    }

    /// Uses credit for a frame that [`Self::room`] allowed.
    pub fn take(&mut self, length: usize) {
        self.0 = self.0.saturating_sub(cost(length));
    }

    /// The receiver gave some back.
    ///
    /// # Errors
    /// [`FrameError::Window`] when it gave more than the window holds.
    pub fn give(&mut self, stream: u32, amount: u32) -> Result<(), FrameError> {
        self.0 = self
            .0
            .checked_add(amount)
            .filter(|sum| *sum <= WINDOW)
            .ok_or(FrameError::Window { stream })?;
        Ok(())
    }
}

/// The receiver's side: what the peer has used and what is owed back.
#[derive(Debug, Default)]
pub struct Receipt {
    outstanding: u32,
    owed: u32,
}

impl Receipt {
    /// A data frame arrived.
    ///
    /// # Errors
    /// [`FrameError::Window`] when the peer sent more than it may.
    pub fn arrived(&mut self, stream: u32, length: usize) -> Result<(), FrameError> {
        self.outstanding = self
            .outstanding
            .checked_add(cost(length))
            .filter(|sum| *sum <= WINDOW)
            .ok_or(FrameError::Window { stream })?;
        Ok(())
    }

    /// The consumer took `amount` of cost. Returns credit to send back now: when a quarter of the
    /// window is owed, or a little when nothing else waits (`drained`).
    pub fn consumed(&mut self, amount: u32, drained: bool) -> Option<u32> {
        self.owed = self.owed.saturating_add(amount).min(self.outstanding);
        let enough = self.owed >= WINDOW / 4 || (drained && self.owed >= 4 << 10);
        if !enough {
            return None;
        }
        let give = std::mem::take(&mut self.owed);
        self.outstanding -= give;
        Some(give)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overdrawing_is_an_error_on_both_sides() {
        let mut receipt = Receipt::default();
        receipt.arrived(1, WINDOW as usize - 64).expect("exactly the window");
        assert_eq!(receipt.arrived(1, 0), Err(FrameError::Window { stream: 1 }));
        let mut credit = Credit::default();
        assert_eq!(credit.give(1, 1), Err(FrameError::Window { stream: 1 }));
        credit.take(100);
        assert_eq!(credit.give(1, 165), Err(FrameError::Window { stream: 1 }));
        assert_eq!(credit.give(1, 164), Ok(()));
    }

    proptest! {
        /// A sender that asks first and a receiver that takes everything never stop each other.
        #[test]
        fn credit_always_comes_back(sizes in prop::collection::vec(1..600_000_usize, 1..200)) {
            let (mut credit, mut receipt) = (Credit::default(), Receipt::default());
            let mut waiting = std::collections::VecDeque::new();
            for size in sizes {
                let mut left = size;
                while left > 0 {
                    if let Some(now) = credit.room(left) {
                        credit.take(now);
                        receipt.arrived(1, now).expect("within the window");
                        waiting.push_back(now);
                        left -= now;
                    } else {
                        let taken = waiting.pop_front().expect("no credit and nothing to take");
                        if let Some(back) = receipt.consumed(cost(taken), waiting.is_empty()) {
                            credit.give(1, back).expect("never too much");
                        }
                    }
                }
            }
        }
    }
}
