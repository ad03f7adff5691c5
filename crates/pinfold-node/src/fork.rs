//! Forks: the disks of all children at one instant of the source, each child made on its own.
//!
//! Where a copy of a disk is cheap, every child's is cloned straight from the source while that is
//! held still, all in one or two commits of the filesystem. Elsewhere one still copy is taken and
//! the children are cloned from it while the source goes on.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use pinfold_disk::{Disk, PoolMethod};
use pinfold_store::{SnapshotRow, WorkspaceRow, WorkspaceSpec};
use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Result, SnapshotId, WorkspaceId, WorkspaceName,
    exec::{Command, ExecSpec},
    limits::{MAX_FORK_COUNT, ResourceLimits},
    workspace::{CreateWorkspace, ForkOutcome, ForkWorkspace, Lineage},
};
use tokio::sync::oneshot;

use crate::{
    LocalNode, limits,
    make::{DiskFrom, Draft, Plan, disk_limits, slots_of},
    node::{Inner, blocking},
    registry::Reservation,
    snapshots::check_has_disk,
    workspace::Workspace,
};

/// Most clones that are made at once, and so most children whose disks are cloned while a running
/// source is held still: more are cloned from a still copy of it, while it goes on.
const AT_ONCE: usize = 128;

/// What all children of a fork have in common.
struct Family {
    spec: WorkspaceSpec,
    image_id: ImageId,
    image_name: ImageName,
    lineage: Lineage,
    base_snapshot: Option<SnapshotId>,
    /// Those of every child.
    limits: ResourceLimits,
    request: ForkWorkspace,
}

/// One child to be made.
struct Child {
    number: u32,
    id: WorkspaceId,
    reservation: Result<Reservation>,
    disk: DiskFrom,
}

/// A disk that a child waits for.
struct Order {
    id: WorkspaceId,
    hand: oneshot::Sender<Result<Disk>>,
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
        self.shielded(|inner| async move {
            let still = snapshot.id.to_string();
            let family = Arc::new(inner.snapshots_family(snapshot, request)?);
            let reservations = inner.reserve_children(&family.request)?;
            inner.make_from_still(&family, reservations, still).await
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
        self.child_limits(&workspace.row().spec, &request)?;
        let reservations = self.reserve_children(&request)?;
        let one = workspace.operation.lock().await;
        let row = workspace.row();
        check_has_disk(&row)?;
        let family = Arc::new(self.workspaces_family(row, request)?);
        if self.clones_together() && reservations.len() <= AT_ONCE {
            let slots = slots_of(&self.root(&family.image_id)?);
            let (children, orders) = ordered(reservations);
            let from = workspace.id.to_string();
            let (ids, limits) = (ids(&orders), disk_limits(&family.limits));
            let cloning = async {
                let clone = move |pool: &pinfold_disk::Pool| {
                    Ok(pool.clone_many(&from, &ids, &limits, slots))
                };
                let cloned = self.hold_still(workspace, clone).await;
                drop(one);
                self.hand_over(orders, cloned?).await;
                Ok(())
            };
            // What a child has besides its disk is made meanwhile.
            let (outcomes, cloned) = tokio::join!(self.make_children(&family, children), cloning);
            return cloned.map(|()| outcomes);
        }
        let still = SnapshotId::generate().to_string();
        self.capture(workspace, still.clone()).await?;
        drop(one);
        let outcomes = self.make_from_still(&family, reservations, still.clone()).await;
        // The copy that the children were cloned from has no name and is not kept.
        let inner = Arc::clone(self);
        self.tasks.spawn(async move { inner.drop_disk(still).await });
        outcomes
    }

    /// Makes children of a disk or snapshot that nothing writes to.
    async fn make_from_still(
        self: &Arc<Self>,
        family: &Arc<Family>,
        reservations: Vec<Result<Reservation>>,
        still: String,
    ) -> Result<Vec<ForkOutcome>> {
        if !self.clones_together() {
            let children = numbered_from_1(reservations)
                .map(|(number, reservation)| Child {
                    number,
                    id: WorkspaceId::generate(),
                    reservation,
                    disk: DiskFrom::Clone(still.clone()),
                })
                .collect();
            return Ok(self.make_children(family, children).await);
        }
        let slots = slots_of(&self.root(&family.image_id)?);
        let limits = disk_limits(&family.limits);
        let (children, mut orders) = ordered(reservations);
        let cloning = async {
            while !orders.is_empty() {
                let now: Vec<Order> = orders.drain(..orders.len().min(AT_ONCE)).collect();
                let (pool, still, ids) = (Arc::clone(&self.pool), still.clone(), ids(&now));
                let cloned =
                    blocking(move || Ok(pool.clone_many(&still, &ids, &limits, slots))).await;
                self.hand_over(now, cloned?).await;
            }
            Ok(())
        };
        let (outcomes, cloned) = tokio::join!(self.make_children(family, children), cloning);
        cloned.map(|()| outcomes)
    }

    /// Whether many clones at once cost the pool less than one after the other.
    fn clones_together(&self) -> bool {
        self.pool.method() == PoolMethod::Btrfs
    }

    /// Gives every child its disk. What a child no longer waits for is removed.
    async fn hand_over(&self, orders: Vec<Order>, disks: Vec<Result<Disk>>) {
        for (order, disk) in orders.into_iter().zip(disks) {
            if let Err(Ok(_unwanted)) = order.hand.send(disk) {
                self.drop_disk(order.id.to_string()).await;
            }
        }
    }

    /// All names at once. A name that is taken is an error of its child; of an only child it is
    /// one of the call.
    fn reserve_children(
        self: &Arc<Self>,
        request: &ForkWorkspace,
    ) -> Result<Vec<Result<Reservation>>> {
        if request.count == 1 {
            return Ok(vec![Ok(self.registry.reserve(request.name.as_ref())?)]);
        }
        let reserve = |number| match &request.name {
            Some(stem) => self.registry.reserve(Some(&format!("{stem}-{number}").parse()?)),
            None => self.registry.reserve(None),
        };
        Ok((1..=request.count).map(reserve).collect())
    }

    /// Makes all children, few at a time, with an outcome for each in their order.
    async fn make_children(
        self: &Arc<Self>,
        family: &Arc<Family>,
        children: Vec<Child>,
    ) -> Vec<ForkOutcome> {
        stream::iter(children)
            .map(|child| {
                let (inner, family) = (Arc::clone(self), Arc::clone(family));
                let task = self.tasks.spawn(async move { inner.make_child(&family, child).await });
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

    async fn make_child(self: &Arc<Self>, family: &Family, child: Child) -> ForkOutcome {
        let id = child.id;
        let made = async {
            let _one_of_few = self.fan_out.acquire().await;
            self.make(self.plan_child(family, child)?, |_| async { Ok(()) }).await
        };
        match made.await {
            Ok((workspace, ())) => ForkOutcome::Workspace(Box::new(workspace.info())),
            Err(failed) => {
                // Its disk may have been made by then.
                self.discard(id).await;
                ForkOutcome::Error(failed)
            }
        }
    }

    fn plan_child(&self, family: &Family, child: Child) -> Result<Plan> {
        let reservation = child.reservation?;
        let hold = self.holds.hold(family.image_id)?;
        let request = &family.request;
        let draft = Draft {
            id: child.id,
            image_id: family.image_id,
            image_name: family.image_name.clone(),
            limits: family.limits.clone(),
            nested: family.spec.nested,
            self_access: family.spec.self_access,
            unlimited: family.spec.unlimited,
            hostname: None,
            labels: request.labels.clone(),
            holder: request.holder,
            env: request.env.clone(),
            command: request.command.as_ref().map(|command| numbered(command, child.number)),
            ttl_ms: request.ttl_ms,
            idle_ms: family.spec.idle_ms,
            ephemeral: false,
            stopped: request.stopped,
            lineage: family.lineage.clone(),
            base_snapshot: family.base_snapshot,
            disk: child.disk,
        };
        Ok(self.plan(reservation, hold, draft))
    }

    fn child_limits(
        &self,
        source: &WorkspaceSpec,
        request: &ForkWorkspace,
    ) -> Result<ResourceLimits> {
        limits::for_fork(&source.limits, &request.limits, &|kind| self.enforceable(kind))
    }

    fn workspaces_family(&self, row: WorkspaceRow, request: ForkWorkspace) -> Result<Family> {
        Ok(Family {
            limits: self.child_limits(&row.spec, &request)?,
            lineage: child_lineage(&row.lineage, row.id, row.base_snapshot),
            spec: row.spec,
            image_id: row.image_id,
            image_name: row.image_name,
            base_snapshot: row.base_snapshot,
            request,
        })
    }

    fn snapshots_family(&self, row: SnapshotRow, request: ForkWorkspace) -> Result<Family> {
        Ok(Family {
            limits: self.child_limits(&row.spec, &request)?,
            lineage: child_lineage(&row.lineage, row.workspace, Some(row.id)),
            spec: row.spec,
            image_id: row.image_id,
            image_name: row.image_name,
            base_snapshot: Some(row.id),
            request,
        })
    }
}

/// Children whose disks are made by somebody else, and what that somebody is to make.
fn ordered(reservations: Vec<Result<Reservation>>) -> (Vec<Child>, Vec<Order>) {
    let mut orders = Vec::new();
    let children = numbered_from_1(reservations)
        .map(|(number, reservation)| {
            let (id, (hand, coming)) = (WorkspaceId::generate(), oneshot::channel());
            if reservation.is_ok() {
                orders.push(Order { id, hand });
            }
            Child { number, id, reservation, disk: DiskFrom::Coming(coming) }
        })
        .collect();
    (children, orders)
}

fn numbered_from_1<T>(all: Vec<T>) -> impl Iterator<Item = (u32, T)> {
    (1..).zip(all)
}

fn ids(orders: &[Order]) -> Vec<String> {
    orders.iter().map(|order| order.id.to_string()).collect()
}

/// Replaces `{}` in every word of a command by `number`.
fn numbered(command: &ExecSpec, number: u32) -> ExecSpec {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_gets_the_childs_number() {
        let command = numbered(&ExecSpec::argv(["run", "--n={}", "{}-{}"]), 7);
        assert_eq!(command, ExecSpec::argv(["run", "--n=7", "7-7"]));
    }
}
