//! How many of something each of its owners has.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Who has how many.
#[derive(Clone, Debug)]
pub(crate) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One of an owner's, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<K: Eq + Hash> {
    of: K,
    counts: Counts<K>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Eq + Hash> Counts<K> {
    /// Counts one more of this owner's, unless it has `most` already.
    pub(crate) fn add(&self, of: K, most: usize) -> Option<Counted<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has = counts.get(&of).copied().unwrap_or_default();
        if has >= most {
            return None;
        }
        counts.insert(of, has + 1);
        Some(Counted { of, counts: self.clone() })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(has) = counts.get_mut(&self.of) {
            *has -= 1;
            if *has == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_nothing_is_left_of_what_was_refused_or_given_back() {
        let counts = Counts::default();
        let first = counts.add('a', 2).expect("the first");
        let second = counts.add('a', 2).expect("the second");
        assert!(counts.add('a', 2).is_none());
        assert!(counts.add('b', 0).is_none());
        let other = counts.add('b', 1).expect("its own");
        drop(first);
        let again = counts.add('a', 2).expect("room again");
        drop((second, other, again));
        assert!(counts.0.lock().expect("sound").is_empty());
    }
}
