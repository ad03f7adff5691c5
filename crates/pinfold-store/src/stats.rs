//! How long commits take, for whoever watches the server.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets in microseconds; a last one is open.
const BOUNDS_US: [u64; 9] = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];

/// What the store has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// Jobs that wait for the writer now.
    pub queued: usize,
    /// Most that may wait.
    pub queue_limit: usize,
    /// Commits that took at most so many seconds and more than the bound before; the last bound is
    /// infinity.
    pub commits: Vec<(f64, u64)>,
    /// Seconds that all commits took together.
    pub commit_seconds: f64,
}

/// Counts commits by duration.
#[derive(Debug, Default)]
pub(crate) struct CommitTimes {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    total_us: AtomicU64,
}

impl CommitTimes {
    pub(crate) fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, queued: usize, queue_limit: usize) -> StoreStats {
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        StoreStats {
            queued,
            queue_limit,
            commits: bounds.zip(counts).collect(),
            commit_seconds: seconds(self.total_us.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_counted_in_the_bucket_that_its_time_fits() {
        let times = CommitTimes::default();
        for us in [100, 101, 2_000_000] {
            times.note(Duration::from_micros(us));
        }
        let stats = times.stats(3, 7);
        let count = |at: usize| stats.commits[at].1;
        assert_eq!((count(0), count(1), count(9)), (1, 1, 1));
        assert_eq!(stats.commits.iter().map(|bucket| bucket.1).sum::<u64>(), 3);
        assert!(stats.commits[9].0.is_infinite());
        assert!((stats.commit_seconds - 2.000_201).abs() < 1e-9);
        assert_eq!((stats.queued, stats.queue_limit), (3, 7));
    }
}
