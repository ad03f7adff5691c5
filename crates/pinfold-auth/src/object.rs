//! What an operation is done to.

use std::fmt;

use pinfold_types::{
    ImageId, ImageName, Result, SessionId, SnapshotId, SnapshotName, TokenId, WorkspaceId,
    WorkspaceName, access::check_token_name,
};
use schemars::JsonSchema;
use serde::Serialize;

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// The server and its collections: lists, and what does not exist yet.
    Server,
    /// One workspace with everything in it: commands, files, ports.
    Workspace,
    /// One snapshot.
    Snapshot,
    /// One image.
    Image,
    /// One token.
    Token,
    /// One session.
    Session,
}

impl ObjectKind {
    /// The noun.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Workspace => "workspace",
            Self::Snapshot => "snapshot",
            Self::Image => "image",
            Self::Token => "token",
            Self::Session => "session",
        }
    }
}

/// One object: a kind, and the id or name by which the caller means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    kind: ObjectKind,
    reference: String,
}

impl ObjectRef {
    /// The server.
    pub const fn server() -> Self {
        Self { kind: ObjectKind::Server, reference: String::new() }
    }

    /// A workspace, by id or name.
    pub fn workspace(reference: impl Into<String>) -> Self {
        Self { kind: ObjectKind::Workspace, reference: reference.into() }
    }

    /// A snapshot, by id or name.
    pub fn snapshot(reference: impl Into<String>) -> Self {
        Self { kind: ObjectKind::Snapshot, reference: reference.into() }
    }

    /// An image, by id or name.
    pub fn image(reference: impl Into<String>) -> Self {
        Self { kind: ObjectKind::Image, reference: reference.into() }
    }

    /// An object of `kind` as a caller names it; `reference` is ignored for the server.
    ///
    /// # Errors
    /// When it is neither an id nor a name of that kind: nothing else reaches the service.
    pub fn parse(kind: ObjectKind, reference: &str) -> Result<Self> {
        let is_id =
            |prefix: &str| reference.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
        match kind {
            ObjectKind::Server => return Ok(Self::server()),
            ObjectKind::Workspace if is_id(WorkspaceId::PREFIX) => {
                reference.parse::<WorkspaceId>().map(drop)
            }
            ObjectKind::Workspace => reference.parse::<WorkspaceName>().map(drop),
            ObjectKind::Snapshot if is_id(SnapshotId::PREFIX) => {
                reference.parse::<SnapshotId>().map(drop)
            }
            ObjectKind::Snapshot => reference.parse::<SnapshotName>().map(drop),
            ObjectKind::Image if is_id(ImageId::PREFIX) => reference.parse::<ImageId>().map(drop),
            ObjectKind::Image => reference.parse::<ImageName>().map(drop),
            ObjectKind::Session => reference.parse::<SessionId>().map(drop),
            ObjectKind::Token if is_id(TokenId::PREFIX) => reference.parse::<TokenId>().map(drop),
            ObjectKind::Token => check_token_name(reference),
        }?;
        Ok(Self { kind, reference: reference.to_owned() })
    }

    /// The same object, by its id.
    pub(crate) fn by_id(&self, id: String) -> Self {
        Self { kind: self.kind, reference: id }
    }

    /// Its kind.
    pub const fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// Id or name; empty for the server.
    pub fn reference(&self) -> &str {
        &self.reference
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectKind::Server => f.write_str("server"),
            kind => write!(f, "{} {}", kind.as_str(), self.reference),
        }
    }
}
