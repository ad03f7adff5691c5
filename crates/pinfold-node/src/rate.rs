//! The output rate of a workspace: one token bucket that all its streams draw from.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Carries at most `rate` bytes a second over time, and one second's worth at once.
#[derive(Debug, Default)]
pub(crate) struct OutputRate(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// Bytes that may pass now; negative while a debt is being waited off.
    tokens: i128,
    filled: Instant,
}

impl OutputRate {
    /// A bucket for this rate, or none.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let limiter = Self::default();
        limiter.set(rate);
        limiter
    }

    /// Changes the rate of streams that are already running too.
    pub(crate) fn set(&self, rate: Option<u64>) {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (bucket.as_mut(), rate) {
            (Some(present), Some(rate)) => {
                present.rate = rate;
                present.tokens = present.tokens.min(i128::from(rate));
            }
            (_, rate) => {
                *bucket = rate.map(|rate| Bucket {
                    rate,
                    tokens: i128::from(rate),
                    filled: Instant::now(),
                });
            }
        }
    }

    /// Accounts for `bytes` that are about to be carried. Says until when they must wait.
    pub(crate) fn account(&self, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        self.take(bytes, now).map(|wait| now + wait)
    }

    fn take(&self, bytes: usize, now: Instant) -> Option<Duration> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.as_mut()?;
        let rate = i128::from(bucket.rate);
        let passed = now.saturating_duration_since(bucket.filled);
        let earned = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX / (1 << 64)) * rate
            / 1_000_000_000;
        if earned > 0 {
            bucket.tokens = (bucket.tokens + earned).min(rate);
            bucket.filled = now;
        }
        bucket.tokens -= i128::try_from(bytes).expect("a usize fits");
        if bucket.tokens >= 0 {
            return None;
        }
        let debt_ns = -bucket.tokens * 1_000_000_000 / rate;
        Some(Duration::from_nanos(u64::try_from(debt_ns).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_output_passes_at_once_and_the_rest_at_the_rate() {
        let limiter = OutputRate::new(Some(1000));
        let now = Instant::now();
        assert_eq!(limiter.take(1000, now), None);
        assert_eq!(limiter.take(500, now), Some(Duration::from_millis(500)));
        let later = now + Duration::from_millis(500);
        assert_eq!(limiter.take(0, later), None);
        assert_eq!(limiter.take(100, later), Some(Duration::from_millis(100)));
        let idle = now + Duration::from_hours(1);
        assert_eq!(limiter.take(1000, idle), None);
        assert!(limiter.take(1, idle).is_some(), "idle time is not saved up beyond a second");
    }

    #[test]
    fn no_rate_never_waits_and_a_rate_can_be_taken_away() {
        let now = Instant::now();
        let limiter = OutputRate::new(None);
        assert_eq!(limiter.take(usize::MAX / 2, now), None);
        limiter.set(Some(10));
        assert!(limiter.take(1000, now).is_some());
        limiter.set(None);
        assert_eq!(limiter.take(1000, now), None);
    }
}
