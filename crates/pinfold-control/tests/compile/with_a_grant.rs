//! compiles
use pinfold_auth::{Caller, ObjectRef, ops};
use pinfold_control::{Node, Service};

pub async fn call<N: Node>(service: &Service<N>, caller: &Caller) -> pinfold_types::Result<()> {
    let wish = ObjectRef::workspace("a");
    let grant = service.grant::<ops::WorkspaceDestroy>(caller, wish).await?;
    service.destroy_workspace(grant).await
}
