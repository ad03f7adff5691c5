//! Which range of host uids belongs to which workspace.
//!
//! In root mode each workspace has 65,536 host uids of its own, so that two workspaces share no
//! owner and the kernel's per-user accounting keeps them apart. A freed range is used again
//! last, which keeps a late process of the former holder from meeting the next one.

use std::sync::{Mutex, PoisonError};

use pinfold_types::{Error, ErrorCode};

/// Uids of one range.
pub(crate) const RANGE: u32 = 65_536;

/// The ranges of one machine.
#[derive(Debug)]
pub(crate) struct UidSlots {
    base: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    slots: Vec<bool>,
    next: usize,
}

impl UidSlots {
    /// `ranges` ranges from host uid `base` on, all free.
    pub(crate) fn new(base: u32, ranges: u32) -> Self {
        let count = usize::try_from(ranges).expect("a u32 fits a usize");
        Self { base, taken: Mutex::new(Taken { slots: vec![false; count], next: 0 }) }
    }

    /// First host uid of a slot.
    pub(crate) fn base_of(&self, slot: u32) -> u32 {
        self.base + slot * RANGE
    }

    /// Takes the free slot that has been free longest.
    pub(crate) fn allocate(&self) -> Result<u32, Error> {
        let mut taken = self.lock();
        let count = taken.slots.len();
        let found = (0..count)
            .map(|step| (taken.next + step) % count)
            .find(|slot| !taken.slots[*slot])
            .ok_or_else(|| {
                Error::new(
                    ErrorCode::QuotaExceeded,
                    format!("all {count} uid ranges of this machine are in use"),
                )
                .hint("remove workspaces, or raise workspaces.uid_ranges in config.toml")
            })?;
        taken.slots[found] = true;
        taken.next = (found + 1) % count;
        Ok(u32::try_from(found).expect("fewer slots than a u32 holds"))
    }

    /// Marks a slot found in the records as taken. `false` when it is out of range or taken.
    pub(crate) fn claim(&self, slot: u32) -> bool {
        let mut taken = self.lock();
        let index = usize::try_from(slot).expect("a u32 fits a usize");
        match taken.slots.get_mut(index) {
            Some(place) if !*place => {
                *place = true;
                if taken.next == index {
                    taken.next = (index + 1) % taken.slots.len();
                }
                true
            }
            _ => false,
        }
    }

    /// Frees a slot.
    pub(crate) fn release(&self, slot: u32) {
        let index = usize::try_from(slot).expect("a u32 fits a usize");
        if let Some(place) = self.lock().slots.get_mut(index) {
            *place = false;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_holder_and_comes_back_last() {
        let slots = UidSlots::new(1 << 20, 3);
        assert!(slots.claim(1));
        assert!(!slots.claim(1));
        assert!(!slots.claim(3));
        assert_eq!(slots.allocate().expect("free"), 0);
        slots.release(0);
        assert_eq!(slots.allocate().expect("free"), 2);
        assert_eq!(slots.allocate().expect("free"), 0);
        assert_eq!(slots.allocate().expect_err("none left").code, ErrorCode::QuotaExceeded);
        assert_eq!(slots.base_of(2), (1 << 20) + 2 * 65_536);
    }
}
