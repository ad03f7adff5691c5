//! Start, stop, pause, resume, destroy, and changes to a workspace that exists.

use std::{sync::Arc, time::Duration};

use pinfold_namespace::WorkspaceCgroup;
use pinfold_store::{Change, WorkspaceRow};
use pinfold_types::{
    Error, ErrorCode, Result, WorkspaceEvent, WorkspaceState,
    workspace::{UpdateWorkspace, WorkspaceInfo},
};

use crate::{
    LocalNode,
    boot::new_secret,
    limits,
    live::Live,
    make::{after, disk_limits, now, slots_of, started},
    node::{Inner, blocking},
    workspace::Workspace,
};

/// What `stop` waits beyond the grace for the guest to see it through.
const STOP_MARGIN: Duration = Duration::from_secs(2);
/// Tries at removing what a destroyed workspace left, before the next start of the server.
const REMOVE_TRIES: u32 = 5;

impl LocalNode {
    /// One workspace, by id or name.
    pub fn get(&self, reference: &str) -> Result<WorkspaceInfo> {
        Ok(self.inner().registry.find(reference)?.info())
    }

    /// Every workspace, oldest first.
    pub fn list(&self) -> Vec<WorkspaceInfo> {
        self.inner().registry.list().iter().map(|workspace| workspace.info()).collect()
    }

    /// Starts a stopped workspace: its next boot.
    pub async fn start(&self, reference: &str) -> Result<WorkspaceInfo> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            inner.start_locked(&workspace).await?;
            Ok(workspace.info())
        })
        .await
    }

    /// Ends all processes: asked first, killed after the grace. The disk is kept.
    pub async fn stop(&self, reference: &str) -> Result<WorkspaceInfo> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            inner.stop_locked(&workspace).await?;
            Ok(workspace.info())
        })
        .await
    }

    /// Freezes all processes.
    pub async fn pause(&self, reference: &str) -> Result<WorkspaceInfo> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            inner.pause_locked(&workspace).await?;
            Ok(workspace.info())
        })
        .await
    }

    /// Lets frozen processes go on.
    pub async fn resume(&self, reference: &str) -> Result<WorkspaceInfo> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            inner.resume_locked(&workspace).await?;
            Ok(workspace.info())
        })
        .await
    }

    /// Kills all processes and removes the workspace. When this returns, that is recorded and no
    /// process is left; its snapshots stay.
    pub async fn destroy(&self, reference: &str) -> Result<()> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move { inner.destroy(&workspace).await }).await
    }

    /// Renames, changes limits at once, TTL, idle time and labels.
    pub async fn update(&self, reference: &str, change: UpdateWorkspace) -> Result<WorkspaceInfo> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            inner.update_locked(&workspace, change).await?;
            Ok(workspace.info())
        })
        .await
    }
}

impl Inner {
    pub(crate) async fn start_locked(self: &Arc<Self>, workspace: &Arc<Workspace>) -> Result<()> {
        let before = workspace.row();
        let secret = new_secret()?;
        let lost = before.spec.env_count > 0 && workspace.envs().0.is_empty();
        let row = workspace.advance(WorkspaceEvent::Start, |row| {
            row.boot += 1;
            row.secret = Some(secret.clone());
            row.pid = None;
            row.start_time = None;
            row.reason = None;
            row.spec.env_lost = lost;
        })?;
        let work = async {
            let boot = self.plan_boot(&row, workspace.envs(), secret).await?;
            let inner = Arc::clone(self);
            let slots = slots_of(&boot.root);
            let (id, limits, unlimited) = (row.id, row.spec.limits.clone(), row.spec.unlimited);
            let (disk, cgroup) = blocking(move || {
                let disk = inner.pool.open_disk(&id.to_string())?;
                disk.prepare_slots(slots)?;
                Ok((disk, inner.prepare(id, &limits, unlimited)?))
            })
            .await?;
            self.launch(boot, &disk, cgroup).await
        };
        match tokio::join!(self.store.update_workspace(&row), work) {
            (Ok(()), Ok(live)) => {
                workspace.tail.clear();
                workspace.activity.touch();
                workspace.set_live(Arc::clone(&live));
                let row =
                    workspace.advance(WorkspaceEvent::GuestReady, |row| started(row, &live))?;
                self.store.update_workspace_relaxed(&row);
                if lost {
                    self.note_of(
                        workspace,
                        "workspace.environment_lost",
                        serde_json::json!({"variables": row.spec.env_count,
                            "why": "it was held in memory only, and the server was restarted"}),
                    );
                }
                self.watch(workspace, &live);
                Ok(())
            }
            (recorded, worked) => {
                if let Ok(live) = &worked {
                    let _ = live.kill_and_wait().await;
                    self.clear_boot(workspace.id, live.cgroup.clone()).await;
                }
                // The boot number stays used up: no handle may mean two boots.
                let row = workspace.advance(WorkspaceEvent::GuestGone, |row| {
                    row.reason.clone_from(&before.reason);
                    row.secret = None;
                })?;
                self.store.update_workspace_relaxed(&row);
                Err(recorded.err().or(worked.err()).expect("one of the two failed"))
            }
        }
    }

    pub(crate) async fn stop_locked(self: &Arc<Self>, workspace: &Arc<Workspace>) -> Result<()> {
        let live = workspace.live();
        let paused = workspace.state() == WorkspaceState::Paused;
        let row = workspace.advance(WorkspaceEvent::Stop, |_| {})?;
        self.store.update_workspace_relaxed(&row);
        let live = live.ok_or_else(|| Error::internal("a live workspace without a boot"))?;
        if paused {
            thaw(&live).await;
        }
        let grace = self.stop_grace;
        let asked = async {
            if let Ok(guest) = workspace.channel(&live).await {
                let _ = guest.shutdown(grace).await;
            }
            live.exited().await;
        };
        let ended = match tokio::time::timeout(grace + STOP_MARGIN, asked).await {
            Ok(()) => Ok(()),
            Err(_) => live.kill_and_wait().await,
        };
        self.clear_boot(workspace.id, live.cgroup.clone()).await;
        ended?;
        let row = workspace.advance(WorkspaceEvent::GuestGone, |row| ended_boot(row, None))?;
        self.store.update_workspace(&row).await
    }

    async fn pause_locked(self: &Arc<Self>, workspace: &Arc<Workspace>) -> Result<()> {
        let before = (workspace.row(), workspace.live());
        let row = workspace.advance(WorkspaceEvent::Pause, |_| {})?;
        let live = before.1.clone().ok_or_else(|| Error::internal("no boot to pause"))?;
        let frozen = match freeze(&live).await {
            Ok(()) => self.store.update_workspace(&row).await,
            refused => refused,
        };
        if let Err(failed) = frozen {
            thaw(&live).await;
            workspace.put_back(before.0, before.1);
            return Err(failed);
        }
        Ok(())
    }

    async fn resume_locked(self: &Arc<Self>, workspace: &Arc<Workspace>) -> Result<()> {
        let before = (workspace.row(), workspace.live());
        let row = workspace.advance(WorkspaceEvent::Resume, |_| {})?;
        if let Err(failed) = self.store.update_workspace(&row).await {
            workspace.put_back(before.0, before.1);
            return Err(failed);
        }
        workspace.activity.touch();
        if let Some(live) = workspace.live() {
            thaw(&live).await;
            // A boot that was adopted while paused has no channel yet. One that gives none now
            // is asked again by whoever needs it.
            let _ = workspace.channel(&live).await;
        }
        Ok(())
    }

    /// Kills and records first, removes after: the answer does not wait for the disk.
    pub(crate) async fn destroy(self: &Arc<Self>, workspace: &Arc<Workspace>) -> Result<()> {
        let _one = workspace.operation.lock().await;
        let before = (workspace.row(), workspace.live());
        let live = before.1.clone();
        let row = workspace.advance(WorkspaceEvent::Destroy, |_| {})?;
        let kill = async {
            match &live {
                Some(live) => live.kill_and_wait().await,
                None => Ok(()),
            }
        };
        let (recorded, killed) = tokio::join!(self.store.update_workspace(&row), kill);
        if let Err(failed) = recorded {
            let mut row = before.0;
            if live.is_some() {
                row.state = WorkspaceState::Stopped;
                row.reason = Some("its removal could not be recorded".into());
                ended_boot(&mut row, None);
            }
            workspace.put_back(row, None);
            return Err(failed);
        }
        self.registry.remove(workspace.id);
        let inner = Arc::clone(self);
        self.tasks.spawn(async move { inner.remove_rest(row, live).await });
        killed
    }

    /// Removes a destroyed workspace's disk, cgroup, directory and row. What resists stays
    /// recorded as `destroying`, and the next start of the server takes it up again.
    pub(crate) async fn remove_rest(self: Arc<Self>, row: WorkspaceRow, live: Option<Arc<Live>>) {
        let id = row.id;
        let _one_of_few = self.removals.acquire().await;
        for attempt in 1..=REMOVE_TRIES {
            match self.try_remove_rest(&row, live.as_ref()).await {
                Ok(()) => {
                    if let Some(slot) = row.uid_slot {
                        self.slots.release(slot);
                    }
                    return;
                }
                Err(err) => {
                    tracing::warn!(%id, attempt, %err, context = ?err.internal, "removal failed");
                    let pause = Duration::from_millis(100) * 2_u32.pow(attempt);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.closing.cancelled() => return,
                    }
                }
            }
        }
    }

    async fn try_remove_rest(&self, row: &WorkspaceRow, live: Option<&Arc<Live>>) -> Result<()> {
        let id = row.id;
        let cgroup = match live {
            Some(live) => live.cgroup.clone(),
            None => self.cgroups.open(&id),
        };
        let (pool, home) = (Arc::clone(&self.pool), self.home.clone());
        blocking(move || {
            home.remove_run(id);
            if let Some(cgroup) = cgroup {
                cgroup.kill()?;
                cgroup.remove()?;
            }
            pool.remove(&id.to_string())
        })
        .await?;
        // Queued in order with a later insert that takes the same uid range.
        self.store.apply_relaxed(vec![Change::DeleteWorkspace(id)]);
        Ok(())
    }

    async fn update_locked(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        change: UpdateWorkspace,
    ) -> Result<()> {
        check_update(&change)?;
        let before = workspace.row();
        if before.state == WorkspaceState::Failed {
            return Err(Error::new(ErrorCode::Conflict, "a failed workspace cannot be changed")
                .hint("it can only be removed: pinfold rm"));
        }
        let rename = match &change.name {
            Some(name) if *name != before.name => Some(self.registry.reserve_rename(name)?),
            _ => None,
        };
        let mut row = before.clone();
        row.spec.limits = limits::for_update(
            &before.spec.limits,
            &change.limits,
            &self.config.workspaces,
            &|kind| self.enforceable(kind),
        )?;
        row.spec.statuses = limits::statuses(&row.spec.limits, &|kind| self.enforceable(kind));
        if let Some(name) = &change.name {
            row.name = name.clone();
        }
        if let Some(labels) = change.labels {
            row.spec.labels = labels;
        }
        match change.ttl_ms {
            Some(0) => row.expires_at = None,
            Some(ms) => row.expires_at = Some(after(now(), ms)),
            None => {}
        }
        match change.idle_ms {
            Some(0) => row.spec.idle_ms = None,
            Some(ms) => row.spec.idle_ms = Some(ms),
            None => {}
        }
        if row.spec.limits != before.spec.limits
            && let Err(failed) = self.apply_limits(workspace, &row).await
        {
            let _ = self.apply_limits(workspace, &before).await;
            return Err(failed);
        }
        if let Err(failed) = self.store.update_workspace(&row).await {
            let _ = self.apply_limits(workspace, &before).await;
            return Err(failed);
        }
        workspace.rate.set(row.spec.limits.output_bytes_per_second);
        workspace.with_row(|present| {
            present.name = row.name.clone();
            present.spec = row.spec;
            present.expires_at = row.expires_at;
        });
        if let Some(rename) = rename {
            rename.move_name(workspace.id, &before.name);
        }
        workspace.activity.touch();
        self.reaper.notify_one();
        Ok(())
    }

    async fn apply_limits(&self, workspace: &Workspace, row: &WorkspaceRow) -> Result<()> {
        let live = workspace.live();
        let (pool, limits, id) =
            (Arc::clone(&self.pool), row.spec.limits.clone(), workspace.id.to_string());
        blocking(move || {
            if let Some(cgroup) = live.as_ref().and_then(|live| live.cgroup.as_ref()) {
                cgroup.apply(&limits)?;
            }
            pool.set_limits(&id, &disk_limits(&limits))
        })
        .await
    }
}

fn check_update(change: &UpdateWorkspace) -> Result<()> {
    // The rules are those of a new workspace; 0 is "none" here.
    pinfold_types::workspace::CreateWorkspace {
        ttl_ms: change.ttl_ms.filter(|ms| *ms > 0),
        idle_ms: change.idle_ms.filter(|ms| *ms > 0),
        labels: change.labels.clone().unwrap_or_default(),
        ..Default::default()
    }
    .check()
}

/// Fields of a record that the end of a boot clears.
pub(crate) fn ended_boot(row: &mut WorkspaceRow, reason: Option<String>) {
    row.pid = None;
    row.start_time = None;
    row.secret = None;
    row.spec.walls = None;
    row.reason = reason;
}

/// Freezes all processes of a boot, off the runtime's threads.
pub(crate) async fn freeze(live: &Arc<Live>) -> Result<()> {
    let live = Arc::clone(live);
    blocking(move || freezer(&live)?.freeze()).await
}

/// Lets them go on. Never fails an operation: what stays frozen is logged.
pub(crate) async fn thaw(live: &Arc<Live>) {
    let live = Arc::clone(live);
    let thawed = blocking(move || live.cgroup.as_ref().map_or(Ok(()), WorkspaceCgroup::thaw));
    if let Err(err) = thawed.await {
        tracing::error!(%err, context = ?err.internal, "processes stay frozen");
    }
}

pub(crate) fn freezer(live: &Live) -> Result<&WorkspaceCgroup> {
    live.cgroup.as_ref().ok_or_else(|| {
        Error::new(ErrorCode::CannotEnforce, "processes cannot be frozen here: no usable cgroup")
            .hint("stop the workspace instead; pinfold doctor names the mend")
    })
}
