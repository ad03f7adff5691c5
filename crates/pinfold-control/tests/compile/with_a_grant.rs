//! compiles
use pinfold_auth::{Authorizer, ObjectRef, PeerCredentials, ops};
use pinfold_control::{Node, Service};

pub async fn call<N: Node>(service: &Service<N>) -> pinfold_types::Result<()> {
    let authorizer = Authorizer::new(1000);
    let owner = authorizer.peer(PeerCredentials { uid: 1000 })?;
    let grant = authorizer.authorize::<ops::WorkspaceDestroy>(&owner, ObjectRef::workspace("a"))?;
    service.destroy_workspace(grant).await
}
