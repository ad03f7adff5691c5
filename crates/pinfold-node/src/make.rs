//! Making workspaces: the durable record and the work go side by side, the answer waits for
//! both, and whatever fails undoes all of it.

mod plan;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};
use pinfold_disk::{Disk, DiskLimits};
use pinfold_store::WorkspaceRow;
use pinfold_types::{
    Error, Mode, Result, WorkspaceEvent, WorkspaceId,
    limits::ResourceLimits,
    workspace::{CreateWorkspace, WorkspaceInfo},
};

use crate::{
    LocalNode,
    boot::{Root, new_secret},
    live::Live,
    node::{Inner, blocking},
    ready::Ready,
    workspace::Workspace,
};

pub(crate) use plan::{DiskFrom, Draft, Plan};

/// How a new workspace gets its first boot.
#[derive(Debug)]
enum Begin {
    Stopped,
    Boot,
    Ready(Box<Ready>),
}

impl LocalNode {
    /// Makes a workspace and, unless told otherwise, starts it. When this returns, the record is
    /// on the disk and the guest answers.
    pub async fn create(&self, request: CreateWorkspace) -> Result<WorkspaceInfo> {
        self.shielded(|inner| async move {
            let plan = inner.plan_create(request, false).await?;
            let (workspace, ()) = inner.make(plan, |_| async { Ok(()) }).await?;
            Ok(workspace.info())
        })
        .await
    }
}

impl Inner {
    /// Makes what was planned. `first` runs as soon as the guest answers, perhaps before the
    /// record is on the disk; its result is handed out only after.
    pub(crate) async fn make<T, F>(
        self: &Arc<Self>,
        plan: Plan,
        first: impl FnOnce(Option<Arc<Live>>) -> F,
    ) -> Result<(Arc<Workspace>, T)>
    where
        F: Future<Output = Result<T>>,
    {
        let Plan { mut reservation, hold: _hold, mut row, env, command_env, disk, start, like } =
            plan;
        let taken = like.as_ref().and_then(|kind| self.take_ready(kind));
        let begin = if let Some((ready, name)) = taken {
            row.id = ready.id;
            row.name = name.name().clone();
            row.uid_slot = ready.slot;
            row.secret = Some(ready.secret.clone());
            reservation = name;
            Begin::Ready(Box::new(ready))
        } else {
            if self.mode == Mode::Root {
                row.uid_slot = Some(self.uid_slot().await?);
            }
            if start { Begin::Boot } else { Begin::Stopped }
        };
        let made =
            self.make_recorded(&mut row, (env.clone(), command_env.clone()), disk, begin, first);
        match made.await {
            Ok((live, value)) => {
                let workspace = Workspace::new(row, env, command_env);
                let row = Self::settle(&workspace, live.as_ref())?;
                reservation.fill(&workspace);
                self.store.update_workspace_relaxed(&row);
                if let Some(live) = live {
                    self.watch(&workspace, &live);
                }
                self.reaper.notify_one();
                if let Some(kind) = like {
                    self.keep_ready(kind);
                }
                Ok((workspace, value))
            }
            Err(failed) => {
                self.forget(row.id, row.uid_slot);
                Err(failed)
            }
        }
    }

    /// The record beside the work. On failure neither is left.
    async fn make_recorded<T, F>(
        self: &Arc<Self>,
        row: &mut WorkspaceRow,
        envs: (BTreeMap<String, String>, BTreeMap<String, String>),
        disk: DiskFrom,
        begin: Begin,
        first: impl FnOnce(Option<Arc<Live>>) -> F,
    ) -> Result<(Option<Arc<Live>>, T)>
    where
        F: Future<Output = Result<T>>,
    {
        if let Begin::Boot = begin {
            row.secret = Some(new_secret()?);
        }
        let row = &*row;
        let since = Instant::now();
        let record = async {
            let recorded = self.store.insert_workspace(row).await;
            tracing::debug!(id = %row.id, after = ?since.elapsed(), "recorded");
            recorded
        };
        let work = async {
            let id = row.id;
            let live = self.begin(row, envs, disk, begin).await?;
            tracing::debug!(%id, after = ?since.elapsed(), "begun");
            match first(live.clone()).await {
                Ok(value) => Ok((live, value)),
                Err(failed) => {
                    self.end_boot(id, live).await;
                    Err(failed)
                }
            }
        };
        let (recorded, worked) = tokio::join!(record, work);
        match (recorded, worked) {
            (Ok(()), Ok(done)) => Ok(done),
            (Ok(()), Err(failed)) => {
                self.discard(row.id).await;
                if let Err(err) = self.store.delete_workspace(row.id).await {
                    tracing::error!(id = %row.id, %err, "a record could not be undone");
                }
                Err(failed)
            }
            (Err(failed), worked) => {
                if let Ok((live, _)) = worked {
                    self.end_boot(row.id, live).await;
                }
                self.discard(row.id).await;
                Err(failed)
            }
        }
    }

    /// Makes the disk and, unless it is to be stopped, the boot. A boot that is ready has both.
    async fn begin(
        self: &Arc<Self>,
        row: &WorkspaceRow,
        envs: (BTreeMap<String, String>, BTreeMap<String, String>),
        disk: DiskFrom,
        begin: Begin,
    ) -> Result<Option<Arc<Live>>> {
        let boot = match begin {
            Begin::Ready(ready) => {
                self.hand_out(&ready, envs.0).await?;
                return Ok(Some(ready.live));
            }
            Begin::Boot => {
                let secret = row.secret.clone().expect("a row of a boot has its secret");
                Some(self.plan_boot(row, envs, secret).await?)
            }
            Begin::Stopped => None,
        };
        let slots = match &boot {
            Some(boot) => slots_of(&boot.root),
            None => slots_of(&self.root(&row.image_id)?),
        };
        let (id, limits, start) = (row.id, row.spec.limits.clone(), boot.is_some());
        let disk = self.make_disk(id, disk, &limits, slots);
        let (limits, unlimited) = (row.spec.limits.clone(), row.spec.unlimited);
        let cgroup = self.in_background(move |inner| {
            if start { inner.prepare(id, &limits, unlimited) } else { Ok(None) }
        });
        // What one of them made when the other failed is discarded by the caller.
        let (disk, cgroup) = tokio::join!(disk, cgroup);
        let (disk, cgroup) = (disk?, cgroup?);
        match boot {
            Some(boot) => Ok(Some(self.launch(boot, &disk, cgroup).await?)),
            None => Ok(None),
        }
    }

    /// A range of uids; one that a boot kept in advance holds, when all are taken.
    async fn uid_slot(self: &Arc<Self>) -> Result<u32> {
        match self.slots.allocate() {
            Err(_) => {
                self.clear_ready(false).await;
                self.slots.allocate()
            }
            slot => slot,
        }
    }

    /// The states a new workspace goes through, once all of it stands.
    fn settle(workspace: &Workspace, live: Option<&Arc<Live>>) -> Result<WorkspaceRow> {
        let Some(live) = live else {
            return workspace.advance(WorkspaceEvent::DiskReady, |_| {});
        };
        workspace.advance(WorkspaceEvent::Start, |_| {})?;
        workspace.set_live(Arc::clone(live));
        workspace.advance(WorkspaceEvent::GuestReady, |row| started(row, live))
    }

    async fn make_disk(
        self: &Arc<Self>,
        id: WorkspaceId,
        from: DiskFrom,
        limits: &ResourceLimits,
        slots: usize,
    ) -> Result<Disk> {
        let limits = disk_limits(limits);
        let source = match from {
            DiskFrom::Coming(disk) => {
                let gone = |_| Err(Error::internal("the disk was promised and never made"));
                return disk.await.unwrap_or_else(gone);
            }
            DiskFrom::New => None,
            DiskFrom::Clone(source) => Some(source),
        };
        self.in_background(move |inner| match source {
            None => inner.pool.create(&id.to_string(), &limits, slots),
            Some(source) => inner.pool.clone_to(&source, &id.to_string(), &limits, slots),
        })
        .await
    }

    /// Ends a boot that nobody is to see.
    pub(crate) async fn end_boot(&self, id: WorkspaceId, live: Option<Arc<Live>>) {
        let Some(live) = live else { return };
        if let Err(err) = live.kill_and_wait().await {
            tracing::warn!(%id, %err, "a boot could not be ended");
        }
        self.clear_boot(id, live.cgroup.clone()).await;
    }

    /// Removes the disk and directories of a workspace that was never seen.
    pub(crate) async fn discard(&self, id: WorkspaceId) {
        let (pool, home) = (Arc::clone(&self.pool), self.home.clone());
        let cgroup = self.cgroups.open(&id);
        let removed = blocking(move || {
            let cleared =
                cgroup.map_or(Ok(()), |cgroup| cgroup.kill().and_then(|()| cgroup.remove()));
            home.remove_run(id);
            pool.remove(&id.to_string()).and(cleared)
        });
        if let Err(err) = removed.await {
            tracing::warn!(%id, %err, "leftovers stay until the next start of the server");
        }
    }
}

/// Fields of a record that a successful start sets.
pub(crate) fn started(row: &mut WorkspaceRow, live: &Live) {
    row.pid = Some(live.pid);
    row.start_time = Some(live.start_time);
    row.started_at = Some(now());
    row.reason = None;
    row.spec.walls = Some(live.walls.clone());
}

/// How many upper layers a root needs.
pub(crate) fn slots_of(root: &Root) -> usize {
    root.mounts.len()
}

/// The limits that the pool enforces.
pub(crate) fn disk_limits(limits: &ResourceLimits) -> DiskLimits {
    DiskLimits { bytes: limits.disk_bytes, inodes: limits.disk_inodes }
}

/// Now, to the millisecond that records keep.
pub(crate) fn now() -> Timestamp {
    let ms = Timestamp::now().as_millisecond();
    Timestamp::from_millisecond(ms).expect("the present is within range")
}

/// A time after another; far beyond the calendar means never.
pub(crate) fn after(start: Timestamp, ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    start.checked_add(SignedDuration::from_millis(ms)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_the_calendar_mean_never() {
        assert_eq!(after(now(), u64::MAX), Timestamp::MAX);
    }
}
