//! E0308
use pinfold_auth::{Grant, ops};
use pinfold_control::{Node, Service};

pub async fn call<N: Node>(
    service: &Service<N>,
    grant: Grant<ops::WorkspaceRead>,
) -> pinfold_types::Result<()> {
    service.destroy_workspace(grant).await
}
