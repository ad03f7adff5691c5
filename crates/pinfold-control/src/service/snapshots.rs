//! Snapshots.

use std::time::Duration;

use pinfold_auth::{Grant, ops};
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result, SnapshotId,
    access::Quota,
    api::{Page, PageQuery, Removed},
    snapshot::{CreateSnapshot, SnapshotInfo},
    workspace::{ForkOutcome, ForkWorkspace},
};

use tokio::time::timeout;

use super::{narrowed, workspaces::children};
use crate::{Node, Service, access::quota::exceeded, check, page::page};

/// Longest wait for other snapshots under the same quota.
const TURN: Duration = Duration::from_secs(15);

impl<N: Node> Service<N> {
    /// Takes a snapshot.
    pub async fn create_snapshot(
        &self,
        grant: Grant<ops::SnapshotCreate>,
        request: CreateSnapshot,
    ) -> Result<SnapshotInfo> {
        let call = self.enter(grant)?;
        let result = self.snapshot_within(call.reference(), request).await;
        call.end_with(result, |info| vec![info.id.to_string()]).await
    }

    /// Takes a snapshot within the quotas of the workspace's holder, and of everyone above it
    /// (PRIV-04). What one takes is known when it is there, so under a quota they are taken in
    /// turns, and one that does not fit is removed: no two of one budget look at the same room.
    async fn snapshot_within(
        &self,
        workspace: &str,
        request: CreateSnapshot,
    ) -> Result<SnapshotInfo> {
        let limited = self.snapshot_budgets(self.node().holding(workspace)?.holder.principal);
        let mut turn = Vec::new();
        if !limited.is_empty() {
            let next = self.access().quotas().turn(limited.iter().map(|(id, _)| *id));
            turn = timeout(TURN, next).await.map_err(|_| {
                let mut busy = Error::new(
                    ErrorCode::Unavailable,
                    format!(
                        "other snapshots under the same quota took longer than {} s",
                        TURN.as_secs()
                    ),
                );
                busy.retry_after_ms = Some(1000);
                busy
            })?;
            // Another may write to it before it is its turn: looked at again afterwards.
            let about = self.node().stats(workspace).await.ok().and_then(|stats| stats.disk_bytes);
            self.room_for_snapshot(&limited, None, about.unwrap_or(0)).await?;
        }
        let (this, workspace) = (self.clone(), workspace.to_owned());
        // The node finishes what it began when the caller goes away, and so does its turn.
        let taken = tokio::spawn(async move {
            let taken = this.node().snapshot(&workspace, request).await?;
            let owed = this.snapshot_budgets(taken.owner);
            let waited_for = |(id, _): &_| limited.iter().any(|(of, _)| of == id);
            let fits = if owed.iter().all(waited_for) {
                this.room_for_snapshot(&owed, Some(taken.id), 0).await
            } else {
                let message = format!("{workspace} came to somebody else in the middle");
                Err(Error::new(ErrorCode::Conflict, message).hint("ask again"))
            };
            if let Err(refused) = fits {
                if let Err(error) = this.node().remove_snapshot(&taken.id.to_string()).await {
                    tracing::error!(%error, snapshot = %taken.id, "over a quota, and still there");
                }
                return Err(refused);
            }
            drop(turn);
            Ok(taken)
        });
        taken.await.map_err(Error::internal)?
    }

    /// Whose quotas on snapshots count for what this principal holds: its own, then those above.
    fn snapshot_budgets(&self, holder: Option<PrincipalId>) -> Vec<(PrincipalId, Quota)> {
        let identity = self.access().identity();
        let line = identity.line(holder).into_iter().map(|id| (id, identity.quota(id)));
        line.filter(|(_, quota)| quota.snapshots.is_some() || quota.snapshot_bytes.is_some())
            .collect()
    }

    /// Whether there is room for one more of `about` bytes, or for the one that was just made.
    async fn room_for_snapshot(
        &self,
        limited: &[(PrincipalId, Quota)],
        made: Option<SnapshotId>,
        about: u64,
    ) -> Result<()> {
        if limited.is_empty() {
            return Ok(());
        }
        let identity = self.access().identity();
        let all = self.node().snapshots(None).await?;
        for (id, quota) in limited {
            let of = |info: &&SnapshotInfo| identity.line(info.owner).contains(id);
            let (others, made): (Vec<_>, Vec<_>) =
                all.iter().filter(of).partition(|info| Some(info.id) != made);
            let sum = |infos: &[&SnapshotInfo]| {
                let bytes = infos.iter().filter_map(|info| info.referenced_bytes);
                bytes.fold(0, u64::saturating_add)
            };
            let more = sum(&made).max(about).max(1);
            for (name, used, more, most) in [
                ("snapshots", others.len() as u64, 1, quota.snapshots),
                ("snapshot_bytes", sum(&others), more, quota.snapshot_bytes),
            ] {
                if let Some(most) = most.filter(|most| used.saturating_add(more) > *most) {
                    return Err(exceeded(name, most, Some(used)));
                }
            }
        }
        Ok(())
    }

    /// One page of a workspace's snapshots, oldest first.
    pub async fn workspace_snapshots(
        &self,
        grant: Grant<ops::WorkspaceSnapshots>,
        query: &PageQuery,
    ) -> Result<Page<SnapshotInfo>> {
        let call = self.enter(grant)?;
        let result = self.node().snapshots(Some(call.reference())).await;
        call.end(result.and_then(|all| page(all, query, |info| info.id))).await
    }

    /// One page of all snapshots, oldest first.
    pub async fn list_snapshots(
        &self,
        grant: Grant<ops::SnapshotList>,
        query: &PageQuery,
    ) -> Result<Page<SnapshotInfo>> {
        let call = self.enter(grant)?;
        let result = self.node().snapshots(None).await.map(|mut all| {
            let caller = call.caller().principal();
            all.retain(|info| self.access().sees_in(caller, info.owner, info.workspace));
            all
        });
        call.end(result.and_then(|all| page(all, query, |info| info.id))).await
    }

    /// One snapshot.
    pub async fn snapshot(&self, grant: Grant<ops::SnapshotRead>) -> Result<SnapshotInfo> {
        let call = self.enter(grant)?;
        let result = self.node().get_snapshot(call.reference()).await;
        call.end(result).await
    }

    /// Removes a snapshot.
    pub async fn remove_snapshot(&self, grant: Grant<ops::SnapshotRemove>) -> Result<Removed> {
        let call = self.enter(grant)?;
        let result = self.node().remove_snapshot(call.reference()).await;
        call.end(result).await
    }

    /// Makes workspaces from a snapshot: a result or an error for each child.
    pub async fn fork_snapshot(
        &self,
        grant: Grant<ops::SnapshotFork>,
        request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        check::fork(&request)?;
        let call = self.enter(grant)?;
        let source = self.node().snapshot_holding(call.reference()).await;
        let reserved = source.and_then(|source| {
            let limits = narrowed(&source.limits, &request.limits);
            self.reserve(call.caller(), &limits, u64::from(request.count))
        });
        let result = match reserved {
            Ok((reserved, holder)) => {
                let id = call.reference().to_owned();
                let request = ForkWorkspace { holder, ..request };
                let make =
                    |this: Self| async move { this.node().fork_snapshot(&id, request).await };
                self.holding(reserved, make).await
            }
            Err(refused) => Err(refused),
        };
        call.end_with(result, |outcomes| children(outcomes)).await
    }
}
