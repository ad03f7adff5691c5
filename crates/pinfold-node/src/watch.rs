//! Following a boot: its first process may die unasked, its channel may break.

use std::{sync::Arc, time::Duration};

use pinfold_types::{WorkspaceEvent, WorkspaceState};

use crate::{
    guest::{ExecEvent, Guest},
    inside::doors,
    lifecycle::ended_boot,
    live::Live,
    node::Inner,
    workspace::Workspace,
};

/// First pause before a broken channel is dialled again, doubled each time. Whoever needs the
/// channel meanwhile dials at once.
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
        let may_ask = workspace.with_row(|row| row.spec.self_access);
        if let Some(inside) = self.inside.clone().filter(|_| may_ask) {
            let (workspace, live) = (Arc::clone(&workspace), Arc::clone(&live));
            tokio::spawn(doors(inside, closing.clone(), workspace, live));
        }
        tokio::spawn(async move {
            tokio::select! {
                // A node that is gone must not dial: it would cut off the one after it.
                biased;
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
        } else if let Some(words) = live.last_words() {
            format!("its first process ended unasked, and said: {words}")
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
        self.note_of(workspace, "workspace.died", detail);
        drop(one);
        if ephemeral && let Err(err) = self.destroy(workspace).await {
            tracing::debug!(id = %workspace.id, %err, "a throw-away workspace was gone already");
        }
    }
}

/// Dials the guest again whenever the channel breaks; returns when the first process has ended.
async fn keep_channel(workspace: &Workspace, live: &Live) {
    let mut states = workspace.states();
    let mut pause = REDIAL_FIRST;
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
        tokio::select! {
            biased;
            () = live.exited() => return,
            dialled = workspace.channel(live) => {
                pause = if dialled.is_ok() { REDIAL_FIRST } else { (pause * 2).min(REDIAL_MOST) };
            }
        }
    }
}

/// Keeps the last output of the start-up command.
async fn tail(
    closing: tokio_util::sync::CancellationToken,
    workspace: Arc<Workspace>,
    live: Arc<Live>,
) {
    let mut states = workspace.states();
    let follow = async {
        loop {
            // A frozen guest answers nobody.
            let _ = states.wait_for(|state| *state != WorkspaceState::Paused).await;
            if let Ok(guest) = workspace.channel(&live).await
                && follow(&workspace, &guest).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(REDIAL_FIRST).await;
        }
    };
    tokio::select! {
        biased;
        () = closing.cancelled() => return,
        () = live.exited() => {}
        () = follow => {}
    }
    workspace.tail.ended();
}

/// Follows the start-up command to its end; an error when the channel ended before.
async fn follow(workspace: &Workspace, guest: &Guest) -> pinfold_types::Result<()> {
    let command = workspace.with_row(|row| row.spec.command.clone()).map(|spec| spec.command);
    let known = guest.execs().await?;
    let started =
        known.iter().filter(|exec| exec.background && Some(&exec.command) == command.as_ref());
    // It was the first of all. One that ended long ago is forgotten.
    let Some(first) = started.min_by_key(|exec| exec.id) else { return Ok(()) };
    let mut stream = guest.attach(first.id, workspace.tail.end_of(first.id)).await?;
    workspace.tail.begin(first.id, stream.offset);
    while let Some(event) = stream.next().await {
        match event {
            ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => workspace.tail.push(&bytes),
            ExecEvent::Exited(_) => break,
            ExecEvent::Failed(error) => return Err(error),
        }
    }
    Ok(())
}
