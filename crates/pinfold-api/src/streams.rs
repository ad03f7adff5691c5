//! What flows over a WebSocket: commands, TCP connections, watches.
//!
//! Each has two loops that run at the same time in one task, so that a client that does not read
//! cannot keep its own signals from arriving; each loop waits for what it hands on, so that
//! nothing is gathered.

pub(crate) mod bounds;
pub(crate) mod exec;
pub(crate) mod mcp;
pub(crate) mod tunnel;
pub(crate) mod watch;

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use crate::ws::{Receiver, Sender, WsError};

/// A silent client is asked this often whether it is there. The kernel tells us when a process
/// on this machine ends; this finds one that stands still for ever.
const PING: Duration = Duration::from_secs(30);
/// The first message must come this soon.
pub(crate) const FIRST: Duration = Duration::from_secs(15);
/// A client that takes nothing for this long is gone.
pub(crate) const STALLED: Duration = Duration::from_hours(1);

/// Pongs on their way from the reading loop to the writing one.
pub(crate) fn pongs() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(4)
}

/// Ticks when a ping is due.
pub(crate) fn pings() -> tokio::time::Interval {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// Tells the peer why the stream ends; then waits for its own goodbye, for a moment, so that
/// what was sent last is not lost in a reset.
pub(crate) async fn goodbye(sender: &mut Sender, receiver: &mut Receiver, code: u16, why: &str) {
    if sender.close(code, why).await.is_err() {
        return;
    }
    let drained = async {
        while !matches!(receiver.next().await, Err(_) | Ok(crate::ws::Message::Close(..))) {}
    };
    let _slow = tokio::time::timeout(Duration::from_millis(500), drained).await;
}

/// Logs how a stream broke; a client that goes away is its own business.
pub(crate) fn broke(what: &str, error: &WsError) {
    match error {
        WsError::Protocol(_) | WsError::TooLarge | WsError::TooMany => {
            tracing::warn!(%error, "{what}");
        }
        WsError::Ended | WsError::Io(_) => tracing::debug!(%error, "{what}"),
    }
}
