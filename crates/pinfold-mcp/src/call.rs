//! One call of a tool: its grants, its progress, its cancellation.

use pinfold_auth::{Caller, Grant, ObjectKind, ObjectRef, Operation};
use pinfold_control::{Node, Service};
use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Result, SessionId, SnapshotId, SnapshotName, WorkspaceId,
    WorkspaceName,
};
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
        check_reference(O::INFO.object, reference)?;
        self.grant(ObjectRef::of(O::INFO.object, reference)).await
    }

    async fn grant<O: Operation>(&self, object: ObjectRef) -> Result<Grant<O>> {
        if !self.operations.contains(&O::INFO.name) {
            return Err(Error::internal(format!("{} is not declared by this tool", O::INFO.name)));
        }
        self.service.grant::<O>(&self.caller, object).await
    }
}

/// Ids and names only: nothing else reaches the service.
fn check_reference(kind: ObjectKind, text: &str) -> Result<()> {
    let looks_like_id =
        |prefix: &str| text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
    match kind {
        ObjectKind::Workspace if looks_like_id(WorkspaceId::PREFIX) => {
            text.parse::<WorkspaceId>().map(drop)
        }
        ObjectKind::Workspace => text.parse::<WorkspaceName>().map(drop),
        ObjectKind::Snapshot if looks_like_id(SnapshotId::PREFIX) => {
            text.parse::<SnapshotId>().map(drop)
        }
        ObjectKind::Snapshot => text.parse::<SnapshotName>().map(drop),
        ObjectKind::Image if looks_like_id(ImageId::PREFIX) => text.parse::<ImageId>().map(drop),
        ObjectKind::Image => text.parse::<ImageName>().map(drop),
        ObjectKind::Session => text.parse::<SessionId>().map(drop),
        kind => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("a {} has no reference", kind.as_str()),
        )),
    }
}
