//! Whether somebody is using a workspace: streams in flight and the time of the last one.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use jiff::Timestamp;

/// Use of one workspace. What is in flight counts as use, however quiet it is.
#[derive(Debug)]
pub(crate) struct Activity {
    in_flight: AtomicUsize,
    last_ms: AtomicI64,
}

/// Keeps a workspace in use until dropped.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Activity>);

impl Activity {
    /// Last used at `at`.
    pub(crate) fn new(at: Timestamp) -> Self {
        Self { in_flight: AtomicUsize::new(0), last_ms: AtomicI64::new(at.as_millisecond()) }
    }

    /// Begins a use.
    pub(crate) fn begin(self: &Arc<Self>) -> InUse {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.touch();
        InUse(Arc::clone(self))
    }

    /// How many uses are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A use that is over at once.
    pub(crate) fn touch(&self) {
        self.last_ms.fetch_max(Timestamp::now().as_millisecond(), Ordering::Relaxed);
    }

    /// When it was last used.
    pub(crate) fn last(&self) -> Timestamp {
        Timestamp::from_millisecond(self.last_ms.load(Ordering::Relaxed))
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// When it will have been idle for `idle_ms`, unless something is in flight.
    pub(crate) fn idle_since(&self, idle_ms: u64) -> Option<Timestamp> {
        if self.in_flight() > 0 {
            return None;
        }
        let idle_ms = i64::try_from(idle_ms).unwrap_or(i64::MAX);
        let at = self.last_ms.load(Ordering::Relaxed).saturating_add(idle_ms);
        Some(Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_is_never_idle() {
        let start = Timestamp::UNIX_EPOCH;
        let activity = Arc::new(Activity::new(start));
        assert_eq!(activity.idle_since(5).map(Timestamp::as_millisecond), Some(5));
        let (one, two) = (activity.begin(), activity.begin());
        drop(one);
        assert_eq!(activity.idle_since(5), None);
        drop(two);
        assert!(activity.idle_since(5).is_some_and(|at| at > start));
        assert_eq!(activity.in_flight(), 0);
    }
}
