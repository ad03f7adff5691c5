//! What an earlier server left: adopted, finished, undone or reclaimed, and said.
//!
//! The records are compared with what is there, workspace by workspace and each on its own, so
//! that one damaged workspace never keeps the others from coming back:
//!
//! | recorded | there | done |
//! |---|---|---|
//! | live | the guest answers with its boot's secret | adopted |
//! | live | no guest, or one that refuses the channel | what is left is killed; marked stopped |
//! | running | the guest lives but does not answer in time | adopted; it is dialled until it does |
//! | paused | the guest lives | adopted, still paused |
//! | creating | the guest answers | adopted: it was made, perhaps even acknowledged |
//! | creating | a disk, no guest | marked stopped, for the same reason |
//! | creating | no disk | undone: it cannot have been acknowledged |
//! | stopping | anything | finished |
//! | destroying | anything | finished |
//! | throw-away | no guest | finished |
//! | any | no disk | marked failed |
//!
//! Then disks, cgroups and run directories that no record names are reclaimed.

mod leftovers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use futures_util::{StreamExt as _, stream};
use pinfold_disk::DiskKind;
use pinfold_store::{Change, SnapshotState, WorkspaceRow};
use pinfold_types::{Error, Result, WorkspaceEvent, WorkspaceState, api::RecoveryAction};

use crate::{
    guest::Guest,
    lifecycle::ended_boot,
    live::Live,
    make::now,
    node::{FAN_OUT, Inner, blocking},
    options::GUEST_ADOPT,
    workspace::Workspace,
};

/// Why a workspace failed whose disk was not there.
const NO_DISK: &str = "its disk is not in the pool";

/// What recovery finds out about one record.
enum Verdict {
    /// Keep it, perhaps with a living boot.
    Keep(WorkspaceRow, Option<Arc<Live>>, Option<(&'static str, String)>),
    /// Finish its removal.
    Remove(WorkspaceRow, Option<Arc<Live>>, &'static str, String),
}

pub(crate) async fn recover(inner: &Arc<Inner>) -> Result<Vec<RecoveryAction>> {
    let rows = inner.store.workspaces().await?;
    let pool = Arc::clone(&inner.pool);
    let disks: HashMap<String, DiskKind> =
        blocking(move || Ok(pool.list()?.into_iter().map(|disk| (disk.id, disk.kind)).collect()))
            .await?;
    let disks = Arc::new(disks);
    for row in &rows {
        if let Some(slot) = row.uid_slot
            && !inner.slots.claim(slot)
        {
            tracing::warn!(id = %row.id, slot, "its uid range is not one of the configured ones");
        }
    }
    let verdicts: Vec<Verdict> = stream::iter(rows)
        .map(|row| inner.judge(row, Arc::clone(&disks)))
        .buffer_unordered(FAN_OUT)
        .collect()
        .await;
    let mut actions = Vec::new();
    let mut changes = Vec::new();
    let mut kept = HashSet::new();
    for verdict in verdicts {
        match verdict {
            Verdict::Keep(row, live, said) => {
                kept.insert(row.id);
                if let Some((action, reason)) = said {
                    actions.push(action_on("workspace", &row.id, action, &reason));
                    changes.push(Change::UpdateWorkspace(Box::new(row.clone())));
                }
                inner.take_in(row, live);
            }
            Verdict::Remove(row, live, action, reason) => {
                actions.push(action_on("workspace", &row.id, action, &reason));
                // The disk is reclaimed with all others that no record names.
                inner.remove_now(&row, live.as_ref()).await;
                changes.push(Change::DeleteWorkspace(row.id));
                if let Some(slot) = row.uid_slot {
                    inner.slots.release(slot);
                }
            }
        }
    }
    actions.extend(leftovers::snapshots(inner, &disks, &mut changes).await?);
    inner.store.apply(changes).await?;
    actions.extend(leftovers::reclaim(inner, &kept).await?);
    for action in &actions {
        tracing::info!(
            kind = action.kind,
            object = action.object,
            action = action.action,
            reason = action.reason,
            "recovery"
        );
        let detail = serde_json::json!({"action": action.action, "reason": action.reason});
        inner.note("recovery", &action.object, detail);
    }
    Ok(actions)
}

pub(crate) fn action_on(
    kind: &str,
    object: &impl ToString,
    action: &str,
    reason: &str,
) -> RecoveryAction {
    RecoveryAction {
        kind: kind.to_owned(),
        object: object.to_string(),
        action: action.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Inner {
    async fn judge(
        self: &Arc<Self>,
        mut row: WorkspaceRow,
        disks: Arc<HashMap<String, DiskKind>>,
    ) -> Verdict {
        use WorkspaceState as S;
        let was = row.state;
        let has_disk = disks.get(&row.id.to_string()) == Some(&DiskKind::Workspace);
        if was == S::Destroying || was == S::Destroyed {
            let live = self.find_process(&row);
            return Verdict::Remove(row, live, "finished", "its removal had begun".into());
        }
        let expects_guest = matches!(was, S::Creating | S::Starting | S::Running | S::Paused);
        let live = if expects_guest { self.adopt(&row).await } else { Err("stopped".to_owned()) };
        match live {
            Ok(live) => {
                let paused = was == S::Paused;
                row.state = if paused { S::Paused } else { S::Running };
                row.pid = Some(live.pid);
                row.start_time = Some(live.start_time);
                row.started_at = row.started_at.or_else(|| Some(now()));
                let changed = (was != row.state)
                    .then_some(("adopted", format!("it was {was} and its guest answers")))
                    .or_else(|| {
                        let answers = paused || live.open_guest().is_some();
                        let why = if answers { "its guest lives" } else { "its guest is slow" };
                        Some(("adopted", why.to_owned()))
                    });
                Verdict::Keep(row, Some(live), changed)
            }
            Err(why) => {
                let leftover = self.find_process(&row);
                self.clear_dead(&row, leftover.as_ref()).await;
                if !has_disk {
                    return no_disk(row, was);
                }
                if row.spec.ephemeral {
                    let reason = format!("a throw-away workspace whose boot is over: {why}");
                    return Verdict::Remove(row, None, "finished", reason);
                }
                match was {
                    S::Failed if row.reason.as_deref() == Some(NO_DISK) => {
                        row.state = S::Stopped;
                        ended_boot(&mut row, None);
                        let reason = "its disk is in the pool again".to_owned();
                        Verdict::Keep(row, None, Some(("marked stopped", reason)))
                    }
                    S::Stopped | S::Failed => Verdict::Keep(row, None, None),
                    S::Stopping => {
                        row.state = S::Stopped;
                        ended_boot(&mut row, None);
                        Verdict::Keep(row, None, Some(("finished", "it was being stopped".into())))
                    }
                    _ => {
                        row.state = S::Stopped;
                        ended_boot(&mut row, Some(why.clone()));
                        Verdict::Keep(row, None, Some(("marked stopped", why)))
                    }
                }
            }
        }
    }

    /// The living boot of a record, if its guest is there and answers; else why not.
    async fn adopt(self: &Arc<Self>, row: &WorkspaceRow) -> Result<Arc<Live>, String> {
        let Some(live) = self.find_process(row) else {
            return Err("its processes had ended when the server came back".into());
        };
        if let Some(cgroup) = live.cgroup.clone() {
            let paused = row.state == WorkspaceState::Paused;
            // A server that dies during a snapshot leaves its processes frozen.
            let settle = move || if paused { cgroup.freeze() } else { cgroup.thaw() };
            if let Err(err) = blocking(settle).await {
                return Err(format!("its cgroup could not be settled: {err}"));
            }
        }
        if row.state == WorkspaceState::Paused {
            // A frozen guest cannot answer; the channel is dialled when it is resumed.
            return Ok(live);
        }
        let Some(secret) = &row.secret else {
            return Err("its boot has no recorded secret".into());
        };
        let connect = Guest::connect(&live.socket, &row.id, row.boot, secret);
        match tokio::time::timeout(GUEST_ADOPT, connect).await {
            Ok(Ok(guest)) => {
                live.set_guest(guest);
                Ok(live)
            }
            Ok(Err(err)) => Err(format!("its guest refused the channel: {err}")),
            // It is the process that was recorded, and a machine under load is no reason to end
            // what runs in it.
            Err(_) if row.state == WorkspaceState::Running => Ok(live),
            Err(_) => Err(format!("its guest did not answer within {GUEST_ADOPT:?}")),
        }
    }

    /// The first process of a record's boot: by pid and start time, or by its cgroup where the
    /// crash came before the pid was recorded.
    fn find_process(&self, row: &WorkspaceRow) -> Option<Arc<Live>> {
        let cgroup = self.cgroups.open(&row.id);
        let recorded = row.pid.zip(row.start_time);
        let (pid, start_time) = match recorded {
            Some(recorded) => recorded,
            None => leftovers::first_process(&cgroup.as_ref()?.processes())
                .or_else(|| self.home.first_process(row.id))?,
        };
        let pidfd = pinfold_namespace::open_pidfd(pid, start_time)?;
        let walls = row.spec.walls.clone().unwrap_or_default();
        let socket = self.home.socket(row.id);
        Live::new(row.boot, pid, start_time, walls, cgroup, socket, pidfd).ok().map(Arc::new)
    }

    /// Ends and clears what a dead or refused boot left.
    async fn clear_dead(&self, row: &WorkspaceRow, live: Option<&Arc<Live>>) {
        if let Some(live) = live
            && let Err(err) = live.kill_and_wait().await
        {
            tracing::warn!(id = %row.id, %err, "a leftover process would not end");
        }
        self.clear_boot(row.id, self.cgroups.open(&row.id)).await;
    }

    async fn remove_now(&self, row: &WorkspaceRow, live: Option<&Arc<Live>>) {
        self.clear_dead(row, live).await;
        self.drop_disk(row.id.to_string()).await;
    }

    /// Puts a recorded workspace in its place and follows its boot.
    fn take_in(self: &Arc<Self>, row: WorkspaceRow, live: Option<Arc<Live>>) {
        let ephemeral = row.spec.ephemeral;
        let workspace = Workspace::new(row, BTreeMap::new(), BTreeMap::new());
        // The time that the server was away is not the workspace's idleness.
        workspace.activity.touch();
        self.registry.insert_recovered(&workspace);
        let Some(live) = live else { return };
        workspace.set_live(Arc::clone(&live));
        self.watch(&workspace, &live);
        if ephemeral {
            workspace.orphaned.store(true, Ordering::Relaxed);
            let (node, closing) = (Arc::downgrade(self), self.closing.clone());
            let grace = self.reattach_grace;
            tokio::spawn(async move {
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(grace) => {}
                }
                let unclaimed = workspace.orphaned.swap(false, Ordering::Relaxed);
                if let (true, Some(inner)) = (unclaimed, node.upgrade())
                    && let Err(err) = inner.destroy(&workspace).await
                {
                    tracing::debug!(id = %workspace.id, %err, "a throw-away workspace was gone");
                }
            });
        }
    }
}

fn no_disk(mut row: WorkspaceRow, was: WorkspaceState) -> Verdict {
    if matches!(was, WorkspaceState::Creating) || row.spec.ephemeral {
        let reason = "its disk was never made, so it was not acknowledged".to_owned();
        return Verdict::Remove(row, None, "undone", reason);
    }
    let reason = NO_DISK.to_owned();
    let said = (was != WorkspaceState::Failed).then(|| ("marked failed", reason.clone()));
    // The transition function agrees: damage is possible in every state but the last two.
    row.state = was.next(WorkspaceEvent::Damage).unwrap_or(WorkspaceState::Failed);
    ended_boot(&mut row, Some(reason));
    Verdict::Keep(row, None, said)
}

/// Snapshots whose making or removal was cut short are finished the same way.
pub(crate) const fn unfinished(state: SnapshotState) -> bool {
    !matches!(state, SnapshotState::Ready)
}

/// A wrong pool must never look like an empty one.
pub(crate) fn state_is_lost(inner: &Inner) -> Option<Error> {
    inner
        .store
        .created()
        .then(|| Error::internal("the state database is new: disks that no record names are kept"))
}
