//! Medians and tails.

use std::time::Duration;

/// Times of one thing, measured many times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    sorted: Vec<Duration>,
}

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { sorted: times }
    }

    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn median(&self) -> Duration {
        self.at(1, 2)
    }

    /// The value that 99 of 100 do not exceed; the greatest of fewer than 100.
    pub(crate) fn p99(&self) -> Duration {
        self.at(99, 100)
    }

    pub(crate) fn longest(&self) -> Duration {
        self.at(1, 1)
    }

    fn at(&self, part: usize, of: usize) -> Duration {
        let place = (self.sorted.len() * part).div_ceil(of).saturating_sub(1);
        self.sorted.get(place).copied().unwrap_or_default()
    }
}

/// How many times as long.
pub(crate) fn ratio(what: Duration, beside: Duration) -> f64 {
    what.as_secs_f64() / beside.as_secs_f64().max(1e-9)
}

/// Milliseconds with as many digits as carry meaning.
pub(crate) fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_tails_are_of_what_was_measured() {
        let times = Times::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(times.median(), Duration::from_millis(50));
        assert_eq!(times.p99(), Duration::from_millis(99));
        assert_eq!(times.longest(), Duration::from_millis(100));
        let few = Times::new(vec![Duration::from_millis(3), Duration::from_millis(1)]);
        assert_eq!((few.median(), few.p99()), (Duration::from_millis(1), Duration::from_millis(3)));
        assert_eq!(Times::default().median(), Duration::ZERO);
    }

    #[test]
    fn times_are_short_to_read() {
        assert_eq!(millis(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(millis(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(millis(Duration::from_millis(123)), "123 ms");
    }
}
