//! Snapshots.

use pinfold_auth::{Grant, ops};
use pinfold_types::{
    Result,
    api::{Page, PageQuery, Removed},
    snapshot::{CreateSnapshot, SnapshotInfo},
    workspace::{ForkOutcome, ForkWorkspace},
};

use super::workspaces::children;
use crate::{Node, Service, check, page::page};

impl<N: Node> Service<N> {
    /// Takes a snapshot.
    pub async fn create_snapshot(
        &self,
        grant: Grant<ops::SnapshotCreate>,
        request: CreateSnapshot,
    ) -> Result<SnapshotInfo> {
        let call = self.enter(grant);
        let result = self.node().snapshot(call.reference(), request).await;
        call.end_with(result, |info| vec![info.id.to_string()])
    }

    /// One page of a workspace's snapshots, oldest first.
    pub async fn workspace_snapshots(
        &self,
        grant: Grant<ops::WorkspaceSnapshots>,
        query: &PageQuery,
    ) -> Result<Page<SnapshotInfo>> {
        let call = self.enter(grant);
        let result = self.node().snapshots(Some(call.reference())).await;
        call.end(result.and_then(|all| page(all, query, |info| info.id)))
    }

    /// One page of all snapshots, oldest first.
    pub async fn list_snapshots(
        &self,
        grant: Grant<ops::SnapshotList>,
        query: &PageQuery,
    ) -> Result<Page<SnapshotInfo>> {
        let call = self.enter(grant);
        let result = self.node().snapshots(None).await;
        call.end(result.and_then(|all| page(all, query, |info| info.id)))
    }

    /// One snapshot.
    pub async fn snapshot(&self, grant: Grant<ops::SnapshotRead>) -> Result<SnapshotInfo> {
        let call = self.enter(grant);
        let result = self.node().get_snapshot(call.reference()).await;
        call.end(result)
    }

    /// Removes a snapshot.
    pub async fn remove_snapshot(&self, grant: Grant<ops::SnapshotRemove>) -> Result<Removed> {
        let call = self.enter(grant);
        let result = self.node().remove_snapshot(call.reference()).await;
        call.end(result)
    }

    /// Makes workspaces from a snapshot: a result or an error for each child.
    pub async fn fork_snapshot(
        &self,
        grant: Grant<ops::SnapshotFork>,
        request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        check::fork(&request)?;
        let call = self.enter(grant);
        let result = self.node().fork_snapshot(call.reference(), request).await;
        call.end_with(result, |outcomes| children(outcomes))
    }
}
