//! Snapshots: taken with the processes held still, kept until removed, shared by what stands on
//! them.

use std::sync::Arc;

use pinfold_disk::{DiskUsage, Mounted, Pool};
use pinfold_namespace::WorkspaceCgroup;
use pinfold_store::{Change, SnapshotRow, SnapshotState, WorkspaceRow};
use pinfold_types::{
    Error, ErrorCode, Result, SnapshotId, SnapshotName, WorkspaceId, WorkspaceState,
    api::Removed,
    name::excerpt,
    snapshot::{CreateSnapshot, SnapshotInfo, SnapshotKind},
    workspace::WorkspaceInfo,
};

use crate::{
    LocalNode,
    lifecycle::freezer,
    live::Live,
    make::now,
    node::{Inner, blocking},
    workspace::Workspace,
};

/// Most snapshots of one workspace.
pub const MAX_SNAPSHOTS: usize = 1000;

impl LocalNode {
    /// Takes a snapshot of a running, paused or stopped workspace.
    pub async fn snapshot(&self, reference: &str, request: CreateSnapshot) -> Result<SnapshotInfo> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            inner.snapshot_locked(&workspace, request).await
        })
        .await
    }

    /// Every snapshot, or those of one workspace, oldest first, with the space they take now.
    pub async fn snapshots(&self, of: Option<&str>) -> Result<Vec<SnapshotInfo>> {
        let of = of.map(|reference| self.inner().registry.find(reference)).transpose()?;
        let rows = self.inner().store.snapshots(of.map(|workspace| workspace.id)).await?;
        let describe = move |inner: &Arc<Inner>| {
            let ready = rows.into_iter().filter(|row| row.state == SnapshotState::Ready);
            Ok(ready.map(|row| inner.describe(row)).collect())
        };
        self.inner().in_background(describe).await
    }

    /// One snapshot, by id or `WORKSPACE/NAME`, or by a name that only one workspace uses.
    pub async fn get_snapshot(&self, reference: &str) -> Result<SnapshotInfo> {
        let row = self.inner().find_snapshot(reference, None).await?;
        self.inner().in_background(move |inner| Ok(inner.describe(row))).await
    }

    /// Removes a snapshot. What was forked from it stays.
    pub async fn remove_snapshot(&self, reference: &str) -> Result<Removed> {
        let row = self.inner().find_snapshot(reference, None).await?;
        self.shielded(|inner| async move { inner.remove_snapshot(row).await }).await
    }

    /// Puts a workspace's disk back to one of its snapshots. A workspace that runs is stopped
    /// for it and started again.
    pub async fn restore(&self, reference: &str, snapshot: &str) -> Result<WorkspaceInfo> {
        let workspace = self.inner().registry.find(reference)?;
        let row = self.inner().find_snapshot(snapshot, Some(workspace.id)).await?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            inner.restore_locked(&workspace, row).await?;
            Ok(workspace.info())
        })
        .await
    }
}

impl Inner {
    async fn snapshot_locked(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        request: CreateSnapshot,
    ) -> Result<SnapshotInfo> {
        let row = workspace.row();
        check_has_disk(&row)?;
        let others = self.store.snapshots(Some(workspace.id)).await?;
        if others.len() >= MAX_SNAPSHOTS {
            return Err(Error::new(
                ErrorCode::QuotaExceeded,
                format!(
                    "workspace {:?} has its most snapshots, {MAX_SNAPSHOTS}",
                    row.name.as_str()
                ),
            )
            .hint("remove some: pinfold snapshot rm"));
        }
        let name = match request.name {
            Some(name) => {
                if others.iter().any(|other| other.name == name) {
                    return Err(Error::new(
                        ErrorCode::AlreadyExists,
                        format!("the workspace has a snapshot named {:?}", name.as_str()),
                    )
                    .hint("choose another name, or remove the old one: pinfold snapshot rm"));
                }
                name
            }
            None => next_name(&others),
        };
        let SnapshotKind::Disk = request.kind;
        let id = SnapshotId::generate();
        let made = self.capture(workspace, id.to_string()).await?;
        let snapshot = SnapshotRow {
            id,
            name,
            state: SnapshotState::Ready,
            workspace: workspace.id,
            workspace_name: row.name,
            boot: row.boot,
            parent: row.base_snapshot,
            kind: SnapshotKind::Disk,
            image_id: row.image_id,
            image_name: row.image_name,
            spec: row.spec,
            lineage: row.lineage,
            referenced_bytes: None,
            exclusive_bytes: None,
            method: made,
            created_at: now(),
        };
        workspace.with_row(|row| row.base_snapshot = Some(id));
        let changes = vec![
            Change::InsertSnapshot(Box::new(snapshot.clone())),
            Change::UpdateWorkspace(Box::new(workspace.row())),
        ];
        if let Err(failed) = self.store.apply(changes).await {
            workspace.with_row(|row| row.base_snapshot = snapshot.parent);
            self.drop_disk(id.to_string()).await;
            return Err(failed);
        }
        workspace.activity.touch();
        // Walking a large workspace may take longer than its snapshot took.
        self.in_background(move |inner| {
            let usage = inner.pool.usage_at_once(&id.to_string());
            Ok(inner.describe_with(snapshot, usage))
        })
        .await
    }

    /// A snapshot as callers see it. Blocks.
    fn describe(&self, row: SnapshotRow) -> SnapshotInfo {
        let usage = self.pool.usage(&row.id.to_string()).ok();
        self.describe_with(row, usage)
    }

    fn describe_with(&self, row: SnapshotRow, usage: Option<DiskUsage>) -> SnapshotInfo {
        let owner = self.registry.name_of(row.workspace);
        SnapshotInfo {
            id: row.id,
            name: row.name,
            workspace: row.workspace,
            workspace_removed: owner.is_none(),
            owner: row.spec.holder.principal,
            workspace_name: owner.unwrap_or(row.workspace_name),
            boot: row.boot,
            parent: row.parent,
            kind: row.kind,
            image: row.image_name.to_string(),
            referenced_bytes: usage.as_ref().map(|usage| usage.referenced_bytes),
            exclusive_bytes: usage.as_ref().and_then(|usage| usage.exclusive_bytes),
            method: row.method,
            created_at: row.created_at,
        }
    }

    /// Copies a workspace's disk as it is at one instant: its processes are frozen meanwhile, and
    /// always let go again.
    pub(crate) async fn capture(
        self: &Arc<Self>,
        workspace: &Workspace,
        to: String,
    ) -> Result<String> {
        let from = workspace.id.to_string();
        let mounted = if workspace.live().is_some() { Mounted::Still } else { Mounted::No };
        self.hold_still(workspace, move |pool| Ok(pool.snapshot(&from, &to, mounted)?.method)).await
    }

    /// Runs blocking work on the pool while nothing writes to a workspace's disk.
    pub(crate) async fn hold_still<T: Send + 'static>(
        self: &Arc<Self>,
        workspace: &Workspace,
        work: impl FnOnce(&Pool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let live = workspace.live();
        let paused = workspace.state() == WorkspaceState::Paused;
        let pool = Arc::clone(&self.pool);
        blocking(move || match &live {
            Some(live) if !paused => {
                let _thawed_at_the_end = Frozen::new(live)?;
                work(&pool)
            }
            _ => work(&pool),
        })
        .await
    }

    /// The snapshot with this id or name. A bare name must belong to one workspace only, or to
    /// the one given.
    pub(crate) async fn find_snapshot(
        &self,
        reference: &str,
        of: Option<WorkspaceId>,
    ) -> Result<SnapshotRow> {
        let unknown = || {
            Error::not_found("snapshot", excerpt(reference)).hint("pinfold snapshot ls lists them")
        };
        if reference.starts_with("snap_") {
            let id: SnapshotId = reference.parse()?;
            let row = self.store.snapshot(id).await?;
            let row = row.filter(|row| row.state == SnapshotState::Ready).ok_or_else(unknown)?;
            if of.is_some_and(|of| of != row.workspace) {
                let owner = row.workspace_name.as_str();
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!("snapshot {id} belongs to another workspace, {owner:?}"),
                )
                .hint(format!(
                    "a workspace is put back to its own snapshots; make a new one of this: \
                     pinfold fork {id}"
                )));
            }
            return Ok(row);
        }
        let (of, gone, name) = match reference.split_once('/') {
            Some((workspace, name)) if of.is_none() => match self.registry.find(workspace) {
                Ok(workspace) => (Some(workspace.id), None, name),
                // One that is gone has left its name with its snapshots.
                Err(_) => (None, Some(workspace), name),
            },
            _ => (of, None, reference),
        };
        let name: SnapshotName = name.parse()?;
        let was_of = |row: &SnapshotRow, owner: &str| {
            row.workspace_name.as_str() == owner && self.registry.name_of(row.workspace).is_none()
        };
        let mut named: Vec<_> = self
            .store
            .snapshots(of)
            .await?
            .into_iter()
            .filter(|row| row.name == name && row.state == SnapshotState::Ready)
            .filter(|row| gone.is_none_or(|owner| was_of(row, owner)))
            .collect();
        match named.len() {
            0 => Err(unknown()),
            1 => Ok(named.remove(0)),
            several => Err(Error::new(
                ErrorCode::Conflict,
                format!("{several} workspaces have a snapshot named {:?}", name.as_str()),
            )
            .hint("say which: WORKSPACE/NAME, or the snapshot's id")),
        }
    }

    async fn remove_snapshot(self: Arc<Self>, mut row: SnapshotRow) -> Result<Removed> {
        let id = row.id;
        row.state = SnapshotState::Removing;
        self.store.update_snapshot(&row).await?;
        let pool = Arc::clone(&self.pool);
        let freed_bytes = blocking(move || {
            let usage = pool.usage(&id.to_string()).ok();
            pool.remove(&id.to_string())?;
            Ok(usage.and_then(|usage| usage.exclusive_bytes).unwrap_or(0))
        })
        .await?;
        self.store.delete_snapshot(id).await?;
        Ok(Removed { snapshots: vec![id], freed_bytes })
    }

    async fn restore_locked(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        snapshot: SnapshotRow,
    ) -> Result<()> {
        let ran = match workspace.state() {
            WorkspaceState::Running | WorkspaceState::Paused => {
                self.stop_locked(workspace).await?;
                true
            }
            WorkspaceState::Stopped => false,
            state => {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!("a workspace that is {state} cannot be restored"),
                )
                .hint("look at its state: pinfold info"));
            }
        };
        let (pool, disk, from) =
            (Arc::clone(&self.pool), workspace.id.to_string(), snapshot.id.to_string());
        let replaced = blocking(move || pool.replace(&disk, &from)).await;
        if replaced.is_ok() {
            let (image_id, image_name) = (snapshot.image_id, snapshot.image_name.clone());
            workspace.with_row(|row| {
                row.base_snapshot = Some(snapshot.id);
                row.image_id = image_id;
                row.image_name = image_name;
            });
            self.store.update_workspace(&workspace.row()).await?;
        }
        if ran {
            self.start_locked(workspace).await?;
        }
        replaced
    }

    /// Removes a disk that no record names; what resists is found at the next start.
    pub(crate) async fn drop_disk(&self, id: String) {
        let pool = Arc::clone(&self.pool);
        if let Err(err) = blocking(move || pool.remove(&id)).await {
            tracing::warn!(%err, context = ?err.internal, "a disk stays until the next start");
        }
    }
}

/// Processes held still until dropped.
struct Frozen<'a>(&'a Live);

impl<'a> Frozen<'a> {
    fn new(live: &'a Live) -> Result<Self> {
        let cgroup = freezer(live)?;
        let frozen = Self(live);
        cgroup.freeze()?;
        Ok(frozen)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Some(Err(err)) = self.0.cgroup.as_ref().map(WorkspaceCgroup::thaw) {
            tracing::error!(pid = self.0.pid, %err, "processes stay frozen");
        }
    }
}

/// Refuses workspaces whose disk cannot be copied.
pub(crate) fn check_has_disk(row: &WorkspaceRow) -> Result<()> {
    match row.state {
        WorkspaceState::Running | WorkspaceState::Paused | WorkspaceState::Stopped => Ok(()),
        state => Err(Error::new(
            ErrorCode::Conflict,
            format!("workspace {:?} is {state}: its disk cannot be copied", row.name.as_str()),
        )
        .hint("look at its state: pinfold info")),
    }
}

/// `snap-N`, one above the highest that is there.
fn next_name(others: &[SnapshotRow]) -> SnapshotName {
    let highest = others
        .iter()
        .filter_map(|row| row.name.as_str().strip_prefix("snap-")?.parse::<u32>().ok())
        .max()
        .unwrap_or(0);
    format!("snap-{}", u64::from(highest) + 1).parse().expect("a short name")
}
