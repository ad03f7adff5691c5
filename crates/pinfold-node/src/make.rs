//! Making workspaces: the durable record and the work go side by side, the answer waits for
//! both, and whatever fails undoes all of it.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};
use pinfold_disk::DiskLimits;
use pinfold_store::{WorkspaceRow, WorkspaceSpec};
use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Mode, Result, WorkspaceEvent, WorkspaceId,
    WorkspaceState,
    exec::ExecSpec,
    limits::ResourceLimits,
    workspace::{CreateWorkspace, Lineage, WorkspaceInfo},
};

use crate::{
    LocalNode,
    boot::{Root, new_secret},
    images::ImageHold,
    limits,
    live::Live,
    node::{Inner, blocking},
    ready::{Kind, Ready},
    registry::Reservation,
    workspace::Workspace,
};

/// Where a new disk comes from.
#[derive(Clone, Debug)]
pub(crate) enum DiskFrom {
    /// Empty.
    New,
    /// The disk or snapshot with this id.
    Clone(String),
}

/// How a new workspace gets its first boot.
#[derive(Debug)]
enum Begin {
    Stopped,
    Boot,
    Ready(Ready),
}

/// A workspace decided on but not made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) reservation: Reservation,
    pub(crate) hold: ImageHold,
    pub(crate) row: WorkspaceRow,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) command_env: BTreeMap<String, String>,
    pub(crate) disk: DiskFrom,
    pub(crate) start: bool,
    /// What a boot made in advance would have to be, where one could serve.
    pub(crate) like: Option<Kind>,
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
    /// Checks a request against this machine and configuration, and reserves its name.
    pub(crate) async fn plan_create(
        self: &Arc<Self>,
        request: CreateWorkspace,
        ephemeral: bool,
    ) -> Result<Plan> {
        request.check()?;
        let image_name =
            request.image.clone().unwrap_or_else(|| self.config.workspaces.default_image.clone());
        let image = self.image_for(image_name.as_str()).await?;
        // A name, as all else here, is part of what is booted.
        let usual = request.name.is_none()
            && request.hostname.is_none()
            && request.command.is_none()
            && !(request.nested || request.allow_unlimited || request.stopped);
        let mut plan = self.plan_on(image.id, image_name, request, ephemeral)?;
        if usual {
            let limits = plan.row.spec.limits.clone();
            plan.like = Some(Kind { image: image.id, limits, ephemeral });
        }
        Ok(plan)
    }

    /// The same on an image that need not have a name.
    pub(crate) fn plan_on(
        self: &Arc<Self>,
        image_id: ImageId,
        image_name: ImageName,
        request: CreateWorkspace,
        ephemeral: bool,
    ) -> Result<Plan> {
        let workspaces = &self.config.workspaces;
        if request.nested && workspaces.forbid_nested {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "nested workspaces are not allowed on this server",
            )
            .hint("workspaces.forbid_nested is set in config.toml"));
        }
        let (unlimited, enforceable) = (request.allow_unlimited, |kind| self.enforceable(kind));
        let limits =
            limits::for_create(&request.limits, workspaces, self.mode, unlimited, &enforceable)?;
        let hold = self.holds.hold(image_id)?;
        let reservation = self.registry.reserve(request.name.as_ref())?;
        let mut command = request.command;
        let command_env = command.as_mut().map(|c| std::mem::take(&mut c.env)).unwrap_or_default();
        let now = now();
        let row = WorkspaceRow {
            id: WorkspaceId::generate(),
            name: reservation.name().clone(),
            state: WorkspaceState::Creating,
            reason: None,
            boot: u64::from(!request.stopped),
            image_id,
            image_name,
            spec: WorkspaceSpec {
                statuses: limits::statuses(&limits, &|kind| self.enforceable(kind)),
                limits,
                nested: request.nested,
                unlimited: request.allow_unlimited,
                hostname: request.hostname,
                labels: request.labels,
                command,
                idle_ms: request.idle_ms,
                walls: None,
                ephemeral,
                env_count: count(&request.env),
            },
            lineage: Lineage::default(),
            pid: None,
            start_time: None,
            uid_slot: None,
            secret: None,
            created_at: now,
            started_at: None,
            expires_at: request.ttl_ms.map(|ms| after(now, ms)),
            last_active_at: now,
            base_snapshot: None,
        };
        Ok(Plan {
            reservation,
            hold,
            row,
            env: request.env,
            command_env,
            disk: DiskFrom::New,
            start: !request.stopped,
            like: None,
        })
    }

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
        let begin = match like.as_ref().and_then(|kind| self.take_ready(kind)) {
            Some((ready, name)) => {
                row.id = ready.id;
                row.name = name.name().clone();
                row.uid_slot = ready.slot;
                row.secret = Some(ready.secret.clone());
                reservation = name;
                Begin::Ready(ready)
            }
            None => {
                if self.mode == Mode::Root {
                    row.uid_slot = Some(self.uid_slot().await?);
                }
                if start { Begin::Boot } else { Begin::Stopped }
            }
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
        let begun = Instant::now();
        let record = async {
            let recorded = self.store.insert_workspace(row).await;
            tracing::debug!(id = %row.id, after = ?begun.elapsed(), "recorded");
            recorded
        };
        let work = async {
            let id = row.id;
            let live = self.begin(row, envs, disk, begin).await?;
            tracing::debug!(%id, after = ?begun.elapsed(), "begun");
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
        let disk = self
            .in_background(move |inner| inner.make_disk(&id.to_string(), &disk, &limits, slots));
        let (limits, unlimited) = (row.spec.limits.clone(), row.spec.unlimited);
        let cgroup = self.in_background(move |inner| {
            if start { inner.prepare(id, &limits, unlimited) } else { Ok(None) }
        });
        // What one of them made when the other failed is discarded by the caller.
        let (disk, cgroup) = tokio::join!(disk, cgroup);
        let (disk, cgroup) = (disk?, cgroup?);
        match boot {
            Some(boot) => Ok(Some(self.launch(boot, disk.path, cgroup).await?)),
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

    fn make_disk(
        &self,
        id: &str,
        from: &DiskFrom,
        limits: &ResourceLimits,
        slots: usize,
    ) -> Result<pinfold_disk::Disk> {
        let limits = disk_limits(limits);
        match from {
            DiskFrom::New => self.pool.create(id, &limits, slots),
            DiskFrom::Clone(source) => self.pool.clone_to(source, id, &limits, slots),
        }
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
            if let Some(cgroup) = cgroup {
                cgroup.kill()?;
                cgroup.remove()?;
            }
            home.remove_run(id);
            pool.remove(&id.to_string())
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

pub(crate) fn count(env: &BTreeMap<String, String>) -> u64 {
    u64::try_from(env.len()).expect("a usize fits")
}

/// Replaces `{}` in every word of a command by `number`.
pub(crate) fn numbered(command: &ExecSpec, number: u32) -> ExecSpec {
    use pinfold_types::exec::Command;
    let number = number.to_string();
    let mut command = command.clone();
    match &mut command.command {
        Command::Argv(words) => {
            for word in words {
                *word = word.replace("{}", &number);
            }
        }
        Command::Shell(line) => *line = line.replace("{}", &number),
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_gets_the_childs_number() {
        let command = numbered(&ExecSpec::argv(["run", "--n={}", "{}-{}"]), 7);
        assert_eq!(command, ExecSpec::argv(["run", "--n=7", "7-7"]));
    }

    #[test]
    fn times_beyond_the_calendar_mean_never() {
        assert_eq!(after(now(), u64::MAX), Timestamp::MAX);
    }
}
