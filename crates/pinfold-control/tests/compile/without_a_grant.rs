//! E0061
use pinfold_control::{Node, Service};

pub async fn call<N: Node>(service: &Service<N>) -> pinfold_types::Result<()> {
    service.destroy_workspace().await
}
