//! Workspaces whose time is up: by TTL, or by lying idle.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{node::Inner, workspace::Workspace};

/// Longest time between two looks: wall clocks jump.
const LOOK: Duration = Duration::from_secs(30);

/// Starts the reaper. It does not keep the node open.
pub(crate) fn start(inner: &Arc<Inner>) {
    let closing = inner.closing.clone();
    let node = Arc::downgrade(inner);
    tokio::spawn(async move {
        loop {
            let Some(inner) = node.upgrade() else { return };
            let next = inner.reap(Timestamp::now());
            let looked_for = inner.reaper.notified();
            tokio::select! {
                () = closing.cancelled() => return,
                () = looked_for => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    });
}

impl Inner {
    /// Destroys what is due at `now`; says how long until the next can be.
    fn reap(self: &Arc<Self>, now: Timestamp) -> Duration {
        let mut next = LOOK;
        for workspace in self.registry.list() {
            let Some((at, why)) = due(&workspace) else { continue };
            match Duration::try_from(at.duration_since(now)) {
                Ok(wait) if !wait.is_zero() => next = next.min(wait),
                _ => self.expire(workspace, why),
            }
        }
        next.max(Duration::from_millis(1))
    }

    fn expire(self: &Arc<Self>, workspace: Arc<Workspace>, why: &'static str) {
        if workspace.expiring.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            // Somebody may have prolonged it, or begun to use it, before the lock was ours.
            let still_due = due(&workspace).is_some_and(|(at, _)| at <= Timestamp::now());
            if still_due {
                let detail = serde_json::json!({"name": workspace.name().as_str(), "why": why});
                match inner.destroy(&workspace).await {
                    Ok(()) => inner.note_of(&workspace, "workspace.expired", detail),
                    Err(err) => tracing::warn!(id = %workspace.id, %err, "expiry failed"),
                }
            }
            workspace.expiring.store(false, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

/// When a workspace is due, and why.
fn due(workspace: &Workspace) -> Option<(Timestamp, &'static str)> {
    let (expires_at, idle_ms) = workspace.with_row(|row| (row.expires_at, row.spec.idle_ms));
    let expires = expires_at.map(|at| (at, "its time to live is over"));
    let idle = idle_ms
        .and_then(|ms| workspace.activity.idle_since(ms))
        .map(|at| (at, "it was idle for its idle time"));
    [expires, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
}
