//! What no record names: disks, cgroups with their processes, run directories.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::Arc,
};

use pinfold_disk::DiskKind;
use pinfold_store::Change;
use pinfold_types::{Result, WorkspaceId, api::RecoveryAction};

use super::{action_on, state_is_lost, unfinished};
use crate::node::{Inner, blocking};

/// Finishes snapshots whose making or removal was cut short.
pub(super) async fn snapshots(
    inner: &Arc<Inner>,
    disks: &HashMap<String, DiskKind>,
    changes: &mut Vec<Change>,
) -> Result<Vec<RecoveryAction>> {
    let mut actions = Vec::new();
    for row in inner.store.snapshots(None).await? {
        let there = disks.contains_key(&row.id.to_string());
        if unfinished(row.state) {
            changes.push(Change::DeleteSnapshot(row.id));
            let reason = "its making or removal had been cut short";
            actions.push(action_on("snapshot", &row.id, "finished", reason));
        } else if !there {
            // The record stays: a pool that is not the usual one must not make them all go.
            let reason = "its disk is not in the pool";
            actions.push(action_on("snapshot", &row.id, "kept without a disk", reason));
        }
    }
    Ok(actions)
}

/// Removes what no record names. With a new database nothing of the pool is removed: then the
/// records are what is missing.
pub(super) async fn reclaim(
    inner: &Arc<Inner>,
    kept: &HashSet<WorkspaceId>,
) -> Result<Vec<RecoveryAction>> {
    let mut actions = cgroups_and_runs(inner, kept).await;
    if let Some(why) = state_is_lost(inner) {
        tracing::info!(context = ?why.internal, "no disks are reclaimed");
        return Ok(actions);
    }
    let mut keep: HashSet<String> = kept.iter().map(ToString::to_string).collect();
    keep.extend(inner.store.snapshots(None).await?.iter().map(|row| row.id.to_string()));
    let pool = Arc::clone(&inner.pool);
    actions.extend(blocking(move || pool.reclaim(&keep)).await?);
    Ok(actions)
}

async fn cgroups_and_runs(inner: &Arc<Inner>, kept: &HashSet<WorkspaceId>) -> Vec<RecoveryAction> {
    let mut actions = Vec::new();
    for id in inner.cgroups.list() {
        if kept.contains(&id) {
            continue;
        }
        let Some(cgroup) = inner.cgroups.open(&id) else { continue };
        let removed = blocking(move || {
            let processes = cgroup.processes().len();
            cgroup.thaw()?;
            cgroup.kill()?;
            cgroup.remove()?;
            Ok(processes)
        });
        match removed.await {
            Ok(processes) => actions.push(action_on(
                "cgroup",
                &id,
                "reclaimed",
                &format!("no record names it; it held {processes} processes"),
            )),
            Err(err) => tracing::warn!(%id, %err, "a cgroup that no record names stays"),
        }
    }
    let Ok(entries) = fs::read_dir(inner.home.runs()) else { return actions };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<WorkspaceId>().ok()) else {
            continue;
        };
        if !kept.contains(&id) {
            end_first_process(inner, id).await;
            inner.home.remove_run(id);
            actions.push(action_on("run directory", &id, "reclaimed", "no record names it"));
        }
    }
    actions
}

/// Ends a boot that no record and no cgroup names, and waits for its end, 5 s at most.
async fn end_first_process(inner: &Arc<Inner>, id: WorkspaceId) {
    const POLLS: u32 = 100;
    let Some((pid, start_time)) = inner.home.first_process(id) else { return };
    let Some(pidfd) = pinfold_namespace::open_pidfd(pid, start_time) else { return };
    let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    for _ in 0..POLLS {
        if !pinfold_namespace::process_matches(pid, start_time) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    tracing::warn!(%id, pid, "a process that no record names would not end");
}

/// Among host pids, the one that is first in its own pid namespace, with its start time.
pub(super) fn first_process(pids: &[i32]) -> Option<(i32, u64)> {
    pids.iter().copied().find_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let inner_pid = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?
            .split_ascii_whitespace()
            .collect::<Vec<_>>();
        let first = inner_pid.len() > 1 && inner_pid.last() == Some(&"1");
        first.then(|| pinfold_namespace::start_time(pid)).flatten().map(|start| (pid, start))
    })
}
