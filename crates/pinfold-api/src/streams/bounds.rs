//! Bounds of streams: how many one principal has open, how old they get, how long they may be
//! silent (F-08).

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pinfold_types::{Error, ErrorCode, PrincipalId, Result, config::StreamsConfig};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::counts::{self, Counts};

/// Try again later (the registry of RFC 6455 §11.7): what ran goes on, a client may come back.
const TRY_AGAIN: u16 = 1013;
/// The server restarts (the same registry).
const RESTART: u16 = 1012;

/// The bounds, and who has how many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    config: Arc<StreamsConfig>,
    open: Counts<PrincipalId>,
}

/// One open stream of a principal, until it is dropped.
pub(crate) type Counted = counts::Counted<PrincipalId>;

impl Bounds {
    pub(crate) fn new(config: StreamsConfig) -> Self {
        Self { config: Arc::new(config), open: Counts::default() }
    }

    /// Counts one more, or refuses.
    pub(crate) fn count(&self, of: PrincipalId) -> Result<Counted> {
        let most = self.config.max_per_principal;
        self.open.add(of, usize::try_from(most).unwrap_or(usize::MAX)).ok_or_else(|| {
            Error::new(
                ErrorCode::RateLimited,
                format!("{most} streams of this caller are open already"),
            )
            .hint("close some, or raise streams.max_per_principal")
        })
    }

    /// Returns when a stream that began at `begun` is too old or has been silent for too long,
    /// with the close code and the reason.
    pub(crate) async fn reached(&self, begun: Instant, pulse: &Pulse) -> (u16, String) {
        let age = begun + Duration::from_millis(self.config.max_age_ms);
        let idle = Duration::from_millis(self.config.idle_ms);
        loop {
            let silent = begun + pulse.last() + idle;
            tokio::time::sleep_until(age.min(silent)).await;
            let now = Instant::now();
            if now >= age {
                let most = self.config.max_age_ms;
                return (TRY_AGAIN, format!("older than streams.max_age_ms ({most})"));
            }
            if now >= begun + pulse.last() + idle {
                let most = self.config.idle_ms;
                return (TRY_AGAIN, format!("silent for streams.idle_ms ({most})"));
            }
        }
    }
}

/// When something was last sent either way, pings aside.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    begun: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Pulse {
    pub(crate) fn new(begun: Instant) -> Self {
        Self { begun, last_ms: Arc::default() }
    }

    /// Something was sent.
    pub(crate) fn beat(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Ordering::Relaxed);
    }

    fn last(&self) -> Duration {
        Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// That a stream has to end, and why.
#[derive(Clone, Debug)]
pub(crate) struct End {
    token: CancellationToken,
    why: Arc<OnceLock<(u16, String)>>,
}

impl End {
    /// Ends with the server, or when [`End::because`] says so.
    pub(crate) fn with(server: &CancellationToken) -> Self {
        Self { token: server.child_token(), why: Arc::default() }
    }

    /// Ends it.
    pub(crate) fn because(&self, (code, why): (u16, String)) {
        let _first = self.why.set((code, why));
        self.token.cancel();
    }

    /// Returns when it has to end.
    pub(crate) async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Close code and reason.
    pub(crate) fn why(&self) -> (u16, &str) {
        self.why.get().map_or((RESTART, "the server restarts"), |(code, why)| (*code, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds::new(StreamsConfig { max_per_principal: 2, max_age_ms: 10_000, idle_ms: 3_000 })
    }

    #[test]
    fn each_principal_has_its_own_count() {
        let bounds = bounds();
        let [one, other] = [PrincipalId::generate(), PrincipalId::generate()];
        let first = bounds.count(one).expect("the first");
        let _second = bounds.count(one).expect("the second");
        let refused = bounds.count(one).expect_err("the third");
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert!(refused.hint.is_some_and(|hint| hint.contains("streams.max_per_principal")));
        let _another = bounds.count(other).expect("another's first");
        drop(first);
        let _again = bounds.count(one).expect("there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_age_end_a_stream_and_say_so() {
        let bounds = bounds();
        let begun = Instant::now();
        let (code, why) = bounds.reached(begun, &Pulse::new(begun)).await;
        assert_eq!((code, begun.elapsed().as_secs()), (1013, 3));
        assert!(why.contains("streams.idle_ms (3000)"), "{why}");

        // One that always has something to say ends by age.
        let begun = Instant::now();
        let pulse = Pulse::new(begun);
        let talking = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                pulse.beat();
            }
        };
        let (code, why) = tokio::select! {
            ended = bounds.reached(begun, &pulse) => ended,
            () = talking => unreachable!("it talks for ever"),
        };
        assert_eq!((code, begun.elapsed().as_secs()), (1013, 10));
        assert!(why.contains("streams.max_age_ms (10000)"), "{why}");
    }
}
