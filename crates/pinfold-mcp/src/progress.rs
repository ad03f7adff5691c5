//! Progress of long calls, for clients that asked for it.

use std::time::Duration;

use rmcp::{
    RoleServer,
    model::{ProgressNotificationParam, ProgressToken},
    service::{Peer, RequestContext},
};
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Least time between two notifications of a call.
const EVERY: Duration = Duration::from_millis(500);
/// A client that does not take a notification for this long goes without it.
const TAKEN: Duration = Duration::from_secs(2);
/// Most bytes of a notification's message.
const MESSAGE_BYTES: usize = 2000;

/// Where a call tells how far it is. Counted in seconds, so it always rises; of what total nobody
/// knows.
#[derive(Debug)]
pub(crate) struct Progress {
    to: Option<(Peer<RoleServer>, ProgressToken)>,
    begun: Instant,
    said: f64,
}

impl Progress {
    pub(crate) fn of(context: &RequestContext<RoleServer>) -> Self {
        let token = context.meta.get_progress_token();
        Self {
            to: token.map(|token| (context.peer.clone(), token)),
            begun: Instant::now(),
            said: 0.0,
        }
    }

    /// Whether the client asked for it.
    pub(crate) const fn wanted(&self) -> bool {
        self.to.is_some()
    }

    /// Time since the call began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ticks when the next notification is due.
    pub(crate) fn ticks() -> Interval {
        let mut ticks = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Tells the client, where it asked.
    pub(crate) async fn say(&mut self, message: &str) {
        let Some((peer, token)) = &self.to else { return };
        let now = self.begun.elapsed().as_secs_f64();
        self.said = now.max(self.said + 0.001);
        let mut end = message.len().min(MESSAGE_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let param =
            ProgressNotificationParam::new(token.clone(), self.said).with_message(&message[..end]);
        // Whoever does not listen loses progress, never the result.
        let _late = tokio::time::timeout(TAKEN, peer.notify_progress(param)).await;
    }
}
