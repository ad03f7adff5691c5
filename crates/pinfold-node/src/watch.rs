//! Following a boot: its first process may die unasked, its channel may break.

use std::{sync::Arc, time::Duration};

use pinfold_types::{WorkspaceEvent, WorkspaceState};

use crate::{
    guest::{ExecEvent, Guest},
    lifecycle::ended_boot,
    live::Live,
    node::Inner,
    options::GUEST_ADOPT,
    workspace::Workspace,
};

/// First pause before a broken channel is dialled again; doubled each time.
const REDIAL_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two tries.
const REDIAL_MOST: Duration = Duration::from_secs(10);

impl Inner {
    /// Starts following a boot. The task ends with the boot or the node, and does not keep the
    /// node open.
    pub(crate) fn watch(self: &Arc<Self>, workspace: &Arc<Workspace>, live: &Arc<Live>) {
        let closing = self.closing.clone();
        let node = Arc::downgrade(self);
        let (workspace, live) = (Arc::clone(workspace), Arc::clone(live));
        let command = workspace.with_row(|row| row.spec.command.is_some());
        if command {
            tokio::spawn(tail(closing.clone(), Arc::clone(&workspace), Arc::clone(&live)));
        }
        tokio::spawn(async move {
            tokio::select! {
                () = closing.cancelled() => return,
                () = keep_channel(&workspace, &live) => {}
            }
            if let Some(node) = node.upgrade() {
                let inner = Arc::clone(&node);
                node.tasks.spawn(async move { inner.guest_gone(&workspace, &live).await });
            }
        });
    }

    /// The first process of a boot has ended. Unless somebody is ending the boot on purpose, the
    /// workspace is stopped now, with a reason.
    async fn guest_gone(self: &Arc<Self>, workspace: &Arc<Workspace>, live: &Arc<Live>) {
        let one = workspace.operation.lock().await;
        let ours = workspace.live().is_some_and(|present| Arc::ptr_eq(&present, live));
        if !ours || !workspace.state().is_live() {
            return;
        }
        let oom_kills = live.counters().and_then(|counters| counters.oom_kills).unwrap_or(0);
        let reason = if oom_kills > 0 {
            format!("its first process ended; the kernel had killed {oom_kills} for memory")
        } else {
            "its first process ended unasked: it was killed or crashed".to_owned()
        };
        self.clear_boot(workspace.id, live.cgroup.clone()).await;
        let ephemeral = workspace.with_row(|row| row.spec.ephemeral);
        match workspace.advance(WorkspaceEvent::GuestGone, |row| {
            ended_boot(row, Some(reason.clone()));
        }) {
            Ok(row) => self.store.update_workspace_relaxed(&row),
            Err(err) => tracing::error!(id = %workspace.id, %err, "a stop did not fit the state"),
        }
        tracing::warn!(id = %workspace.id, boot = live.boot, reason, "workspace stopped by itself");
        let detail = serde_json::json!({"boot": live.boot, "reason": reason});
        self.note("workspace.died", &workspace.id, detail);
        drop(one);
        if ephemeral && let Err(err) = self.destroy(workspace).await {
            tracing::debug!(id = %workspace.id, %err, "a throw-away workspace was gone already");
        }
    }
}

/// Dials the guest again whenever the channel breaks; returns when the first process has ended.
async fn keep_channel(workspace: &Workspace, live: &Live) {
    let mut states = workspace.states();
    let mut pause = Duration::ZERO;
    loop {
        let wanted = async {
            if let Ok(guest) = live.guest() {
                guest.closed().await;
            }
            tokio::time::sleep(pause).await;
            // A frozen guest answers nobody.
            let _ = states.wait_for(|state| *state != WorkspaceState::Paused).await;
        };
        tokio::select! {
            biased;
            () = live.exited() => return,
            () = wanted => {}
        }
        if live.guest().is_ok_and(|guest| !guest.is_closed()) {
            continue;
        }
        tokio::select! {
            biased;
            () = live.exited() => return,
            dialled = redial(workspace, live) => {
                pause = if dialled { Duration::ZERO } else { next_pause(pause) };
            }
        }
    }
}

fn next_pause(pause: Duration) -> Duration {
    if pause.is_zero() { REDIAL_FIRST } else { (pause * 2).min(REDIAL_MOST) }
}

/// Dials the guest of a boot again. Whether it answered.
pub(crate) async fn redial(workspace: &Workspace, live: &Live) -> bool {
    let Some(secret) = workspace.with_row(|row| row.secret.clone()) else { return false };
    let connect = Guest::connect(&live.socket, &workspace.id, live.boot, &secret);
    let dialled = tokio::time::timeout(GUEST_ADOPT, connect).await;
    match dialled {
        Ok(Ok(guest)) => {
            live.set_guest(Some(guest));
            return true;
        }
        Ok(Err(err)) => tracing::debug!(id = %workspace.id, %err, "a guest refused a channel"),
        Err(_) => tracing::debug!(id = %workspace.id, "a guest did not answer"),
    }
    live.set_guest(None);
    false
}

/// Keeps the last output of the start-up command.
async fn tail(
    closing: tokio_util::sync::CancellationToken,
    workspace: Arc<Workspace>,
    live: Arc<Live>,
) {
    let follow = async {
        let guest = live.guest().ok()?;
        let known = guest.execs().await.ok()?;
        let first = known.iter().min_by_key(|exec| exec.id)?;
        let mut stream = guest.attach(first.id, None).await.ok()?;
        while let Some(event) = stream.next().await {
            match event {
                ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => workspace.tail.push(&bytes),
                ExecEvent::Exited(_) | ExecEvent::Failed(_) => break,
            }
        }
        Some(())
    };
    tokio::select! {
        () = closing.cancelled() => {}
        _ = follow => {}
    }
}
