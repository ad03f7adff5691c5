//! One call of a tool: its grants, its progress, its cancellation.

use pinfold_auth::{Caller, Grant, ObjectRef, Operation};
use pinfold_control::{Node, Service};
use pinfold_types::{Error, Result};
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;

/// What a tool works with.
#[derive(Debug)]
pub(crate) struct Call<N: Node> {
    pub(crate) service: Service<N>,
    pub(crate) caller: Caller,
    /// Operations that the tool declared.
    pub(crate) operations: &'static [&'static str],
    pub(crate) progress: Progress,
    /// The client does not want the answer any more.
    pub(crate) cancelled: CancellationToken,
}

impl<N: Node> Call<N> {
    /// A grant for an operation on the server.
    pub(crate) async fn on_server<O: Operation>(&self) -> Result<Grant<O>> {
        self.grant(ObjectRef::server()).await
    }

    /// A grant for an operation on an object, by id or name.
    pub(crate) async fn on<O: Operation>(&self, reference: &str) -> Result<Grant<O>> {
        self.grant(ObjectRef::parse(O::INFO.object, reference)?).await
    }

    async fn grant<O: Operation>(&self, object: ObjectRef) -> Result<Grant<O>> {
        if !self.operations.contains(&O::INFO.name) {
            return Err(Error::internal(format!("{} is not declared by this tool", O::INFO.name)));
        }
        self.service.grant::<O>(&self.caller, object).await
    }
}
