//! Snapshots.

use pinfold_auth::ops;
use pinfold_control::{Node, Service};

use crate::{
    call::Call,
    reply::{Reply, created, json},
};

pub(super) async fn create<N: Node>(service: Service<N>, call: Call<ops::SnapshotCreate>) -> Reply {
    let (grant, request) = call.json().await?;
    created(&service.create_snapshot(grant, request).await?)
}

pub(super) async fn of_workspace<N: Node>(
    service: Service<N>,
    call: Call<ops::WorkspaceSnapshots>,
) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.workspace_snapshots(grant, &query).await?)
}

pub(super) async fn list<N: Node>(service: Service<N>, call: Call<ops::SnapshotList>) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.list_snapshots(grant, &query).await?)
}

pub(super) async fn read<N: Node>(service: Service<N>, call: Call<ops::SnapshotRead>) -> Reply {
    json(&service.snapshot(call.grant()).await?)
}

pub(super) async fn remove<N: Node>(service: Service<N>, call: Call<ops::SnapshotRemove>) -> Reply {
    json(&service.remove_snapshot(call.grant()).await?)
}

pub(super) async fn fork<N: Node>(service: Service<N>, call: Call<ops::SnapshotFork>) -> Reply {
    let (grant, request) = call.json().await?;
    json(&service.fork_snapshot(grant, request).await?)
}
