//! What was acknowledged, and what may be.

use std::collections::{BTreeMap, BTreeSet};

/// A small generator (xorshift64*), so that a seed repeats a run's choices.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end.max(1)
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(items.len()).expect("a length fits");
        if count == 0 {
            return None;
        }
        items.get(usize::try_from(self.below(count)).expect("an index fits"))
    }
}

/// The values a file may hold: one after an acknowledged write, two after one that was cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marker(BTreeSet<u64>);

impl Marker {
    /// A write of `value` was acknowledged.
    pub(crate) fn acknowledge(&mut self, value: u64) {
        self.0 = BTreeSet::from([value]);
    }

    /// A write of `value` was cut off: before or after its effect.
    pub(crate) fn cut_off(&mut self, value: u64) {
        self.0.insert(value);
    }

    /// Whether a file that holds `value` keeps the promise.
    pub(crate) fn allows(&self, value: u64) -> bool {
        self.0.contains(&value)
    }

    /// A read shows which it was.
    pub(crate) fn seen(&mut self, value: u64) {
        self.0 = BTreeSet::from([value]);
    }

    /// Every value either of two may hold.
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }
}

/// What is known of one workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Its marker file.
    pub(crate) marker: Marker,
    /// Acknowledged snapshots and the marker each holds.
    pub(crate) snapshots: BTreeMap<String, Marker>,
    /// A removal was acknowledged.
    pub(crate) removed: bool,
    /// A creation or removal was cut off: it may or may not be there.
    pub(crate) uncertain: bool,
}
