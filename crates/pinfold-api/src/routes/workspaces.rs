//! Workspaces from making to removing.

use pinfold_auth::ops;
use pinfold_control::{Node, Service};

use crate::{
    call::Call,
    reply::{Reply, created, json, nothing},
};

pub(super) async fn create<N: Node>(
    service: Service<N>,
    call: Call<ops::WorkspaceCreate>,
) -> Reply {
    let (grant, request) = call.json().await?;
    created(&service.create_workspace(grant, request).await?)
}

pub(super) async fn list<N: Node>(service: Service<N>, call: Call<ops::WorkspaceList>) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.list_workspaces(grant, &query).await?)
}

pub(super) async fn read<N: Node>(service: Service<N>, call: Call<ops::WorkspaceRead>) -> Reply {
    json(&service.workspace(call.grant()).await?)
}

pub(super) async fn update<N: Node>(
    service: Service<N>,
    call: Call<ops::WorkspaceUpdate>,
) -> Reply {
    let (grant, change) = call.json().await?;
    json(&service.update_workspace(grant, change).await?)
}

pub(super) async fn destroy<N: Node>(
    service: Service<N>,
    call: Call<ops::WorkspaceDestroy>,
) -> Reply {
    service.destroy_workspace(call.grant()).await?;
    Ok(nothing())
}

pub(super) async fn start<N: Node>(service: Service<N>, call: Call<ops::WorkspaceStart>) -> Reply {
    json(&service.start_workspace(call.grant()).await?)
}

pub(super) async fn stop<N: Node>(service: Service<N>, call: Call<ops::WorkspaceStop>) -> Reply {
    json(&service.stop_workspace(call.grant()).await?)
}

pub(super) async fn pause<N: Node>(service: Service<N>, call: Call<ops::WorkspacePause>) -> Reply {
    json(&service.pause_workspace(call.grant()).await?)
}

pub(super) async fn resume<N: Node>(
    service: Service<N>,
    call: Call<ops::WorkspaceResume>,
) -> Reply {
    json(&service.resume_workspace(call.grant()).await?)
}

pub(super) async fn restore<N: Node>(
    service: Service<N>,
    call: Call<ops::WorkspaceRestore>,
) -> Reply {
    let (grant, request) = call.json().await?;
    json(&service.restore_workspace(grant, &request).await?)
}

pub(super) async fn fork<N: Node>(service: Service<N>, call: Call<ops::WorkspaceFork>) -> Reply {
    let (grant, request) = call.json().await?;
    json(&service.fork_workspace(grant, request).await?)
}

pub(super) async fn stats<N: Node>(service: Service<N>, call: Call<ops::WorkspaceStats>) -> Reply {
    json(&service.workspace_stats(call.grant()).await?)
}

pub(super) async fn logs<N: Node>(service: Service<N>, call: Call<ops::WorkspaceLogs>) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.workspace_logs(grant, query).await?)
}
