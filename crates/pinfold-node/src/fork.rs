//! Forks: one still copy of a disk, then as many children as asked for, each made on its own.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use pinfold_store::{WorkspaceRow, WorkspaceSpec};
use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Result, SnapshotId, WorkspaceId, WorkspaceName,
    WorkspaceState,
    limits::MAX_FORK_COUNT,
    workspace::{CreateWorkspace, ForkOutcome, ForkWorkspace, Lineage},
};

use crate::{
    LocalNode, limits,
    make::{DiskFrom, Plan, after, count, now, numbered},
    node::Inner,
    registry::Reservation,
    snapshots::check_has_disk,
    workspace::Workspace,
};

/// What all children of a fork have in common.
struct Source {
    disk: String,
    spec: WorkspaceSpec,
    image_id: ImageId,
    image_name: ImageName,
    lineage: Lineage,
    base_snapshot: Option<SnapshotId>,
    name: WorkspaceName,
}

impl LocalNode {
    /// Makes children of a workspace, or of a snapshot (`snap_…` or `WORKSPACE/NAME`). The
    /// outcome of each is told apart; only what is wrong for all of them is an error of the call.
    ///
    /// A child has a copy of the disk as it was at one instant, the image, and rights no wider
    /// than the source's; processes and environment are not copied.
    pub async fn fork(&self, reference: &str, request: ForkWorkspace) -> Result<Vec<ForkOutcome>> {
        check(&request)?;
        if reference.starts_with("snap_") || reference.contains('/') {
            return self.fork_snapshot(reference, request).await;
        }
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move { inner.fork_workspace(&workspace, request).await }).await
    }

    /// Makes children of a snapshot, by id or name.
    pub async fn fork_snapshot(
        &self,
        reference: &str,
        request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        check(&request)?;
        let snapshot = self.inner().find_snapshot(reference, None).await?;
        let source = Source {
            disk: snapshot.id.to_string(),
            lineage: child_lineage(&snapshot.lineage, snapshot.workspace, Some(snapshot.id)),
            spec: snapshot.spec,
            image_id: snapshot.image_id,
            image_name: snapshot.image_name,
            base_snapshot: Some(snapshot.id),
            name: snapshot.workspace_name,
        };
        self.shielded(|inner| async move {
            let reservations = inner.reserve_children(&source.name, &request)?;
            Ok(inner.make_children(source, request, reservations).await)
        })
        .await
    }
}

impl Inner {
    async fn fork_workspace(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        let _in_use = workspace.activity.begin();
        // Wrong limits are refused before anything is copied.
        let present = workspace.row();
        limits::for_fork(&present.spec.limits, &request.limits, &|kind| self.enforceable(kind))?;
        let reservations = self.reserve_children(&present.name, &request)?;
        let still = SnapshotId::generate().to_string();
        let row = {
            let _one = workspace.operation.lock().await;
            let row = workspace.row();
            check_has_disk(&row)?;
            self.capture(workspace, still.clone()).await?;
            row
        };
        let source = Source {
            disk: still.clone(),
            lineage: child_lineage(&row.lineage, row.id, row.base_snapshot),
            spec: row.spec,
            image_id: row.image_id,
            image_name: row.image_name,
            base_snapshot: row.base_snapshot,
            name: row.name,
        };
        let outcomes = self.make_children(source, request, reservations).await;
        // The copy that the children were cloned from has no name and is not kept.
        let inner = Arc::clone(self);
        self.tasks.spawn(async move { inner.drop_disk(still).await });
        Ok(outcomes)
    }

    /// All names at once, so that a taken one is found before anything is made.
    fn reserve_children(
        self: &Arc<Self>,
        source: &WorkspaceName,
        request: &ForkWorkspace,
    ) -> Result<Vec<Reservation>> {
        if let (Some(name), 1) = (&request.name, request.count) {
            return Ok(vec![self.registry.reserve(Some(name))?]);
        }
        let Some(stem) = &request.name else {
            return (0..request.count).map(|_| self.registry.reserve(None)).collect();
        };
        tracing::debug!(%source, %stem, "forking");
        (1..=request.count)
            .map(|number| self.registry.reserve(Some(&format!("{stem}-{number}").parse()?)))
            .collect()
    }

    async fn make_children(
        self: &Arc<Self>,
        source: Source,
        request: ForkWorkspace,
        reservations: Vec<Reservation>,
    ) -> Vec<ForkOutcome> {
        let shared = Arc::new((source, request));
        stream::iter((1..).zip(reservations))
            .map(|(number, reservation)| {
                let (inner, shared) = (Arc::clone(self), Arc::clone(&shared));
                async move {
                    let child = async {
                        let _one_of_few = inner.fan_out.acquire().await;
                        let plan = inner.plan_child(&shared.0, &shared.1, number, reservation)?;
                        inner.make(plan, |_| async { Ok(()) }).await
                    };
                    match child.await {
                        Ok((workspace, ())) => ForkOutcome::Workspace(Box::new(workspace.info())),
                        Err(failed) => ForkOutcome::Error(failed),
                    }
                }
            })
            .map(|child| {
                let task = self.tasks.spawn(child);
                async move {
                    task.await.unwrap_or_else(|err| {
                        ForkOutcome::Error(Error::internal(format!("a fork died: {err}")))
                    })
                }
            })
            .buffered(crate::node::FAN_OUT * 2)
            .collect()
            .await
    }

    fn plan_child(
        &self,
        source: &Source,
        request: &ForkWorkspace,
        number: u32,
        reservation: Reservation,
    ) -> Result<Plan> {
        let enforceable = |kind| self.enforceable(kind);
        let limits = limits::for_fork(&source.spec.limits, &request.limits, &enforceable)?;
        let mut command = request.command.as_ref().map(|command| numbered(command, number));
        let command_env = command.as_mut().map(|c| std::mem::take(&mut c.env)).unwrap_or_default();
        let now = now();
        let row = WorkspaceRow {
            id: WorkspaceId::generate(),
            name: reservation.name().clone(),
            state: WorkspaceState::Creating,
            reason: None,
            boot: u64::from(!request.stopped),
            image_id: source.image_id,
            image_name: source.image_name.clone(),
            spec: WorkspaceSpec {
                statuses: limits::statuses(&limits, &enforceable),
                limits,
                nested: source.spec.nested,
                unlimited: source.spec.unlimited,
                hostname: None,
                labels: request.labels.clone(),
                command,
                idle_ms: source.spec.idle_ms,
                walls: None,
                ephemeral: false,
                env_count: count(&request.env),
            },
            lineage: source.lineage.clone(),
            pid: None,
            start_time: None,
            uid_slot: None,
            secret: None,
            created_at: now,
            started_at: None,
            expires_at: request.ttl_ms.map(|ms| after(now, ms)),
            last_active_at: now,
            base_snapshot: source.base_snapshot,
        };
        Ok(Plan {
            reservation,
            hold: self.holds.hold(source.image_id)?,
            row,
            env: request.env.clone(),
            command_env,
            disk: DiskFrom::Clone(source.disk.clone()),
            start: !request.stopped,
            like: None,
        })
    }
}

fn child_lineage(source: &Lineage, parent: WorkspaceId, snapshot: Option<SnapshotId>) -> Lineage {
    Lineage { parent: Some(parent), snapshot, depth: source.depth.saturating_add(1) }
}

fn check(request: &ForkWorkspace) -> Result<()> {
    if !(1..=MAX_FORK_COUNT).contains(&request.count) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("a count of {} is outside 1 to {MAX_FORK_COUNT}", request.count),
        ));
    }
    if let (Some(stem), true) = (&request.name, request.count > 1) {
        // The longest name decides; a stem that is too long for it is refused as a name.
        format!("{stem}-{}", request.count).parse::<WorkspaceName>()?;
    }
    CreateWorkspace {
        limits: request.limits.clone(),
        env: request.env.clone(),
        command: request.command.clone(),
        ttl_ms: request.ttl_ms,
        labels: request.labels.clone(),
        ..Default::default()
    }
    .check()
}
