//! Snapshots as callers ask for them and see them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PrincipalId, SnapshotId, SnapshotName, WorkspaceId, WorkspaceName};

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// The disk.
    #[default]
    Disk,
}

/// A request for a snapshot of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Unique among the workspace's snapshots; `snap-N` when absent.
    pub name: Option<SnapshotName>,
    /// Only `disk`.
    pub kind: SnapshotKind,
}

/// A snapshot as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotInfo {
    /// Id.
    pub id: SnapshotId,
    /// Name.
    pub name: SnapshotName,
    /// The workspace it was taken of.
    pub workspace: WorkspaceId,
    /// That workspace's name; the last one it had when it is gone.
    pub workspace_name: WorkspaceName,
    /// That workspace was removed. Its snapshots stay until they are removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workspace_removed: bool,
    /// Whose it is; absent: the user's who runs the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PrincipalId>,
    /// Boot it was taken in.
    pub boot: u64,
    /// The snapshot that the workspace's disk descended from at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// What it holds.
    pub kind: SnapshotKind,
    /// Image the workspace stands on.
    pub image: String,
    /// Bytes it can reach, shared ones included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referenced_bytes: Option<u64>,
    /// Bytes charged to it alone. On btrfs with simple quotas those that were written into it,
    /// elsewhere those that removing it would free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_bytes: Option<u64>,
    /// How it was made: `btrfs snapshot`, `reflink`, `sealed layer`, `copy`.
    pub method: String,
    /// When, RFC 3339 UTC.
    pub created_at: Timestamp,
}
