//! What is recorded, one struct a table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pinfold_types::{
    BootSecret, ImageId, ImageName, SnapshotId, SnapshotName, WorkspaceId, WorkspaceName,
    WorkspaceState,
    access::Holder,
    exec::ExecSpec,
    limits::{LimitStatus, ResourceLimits},
    snapshot::SnapshotKind,
    workspace::{Lineage, Walls},
};
use serde::{Deserialize, Serialize};

/// What a workspace was asked to be and became, stored as JSON beside its row.
///
/// Environments are not part of it: they live in the guest's memory only (AUTH-09). Whoever fills
/// `command` clears its `env` first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct WorkspaceSpec {
    /// Limits in force: the request over the profile.
    pub limits: ResourceLimits,
    /// The same, each with what enforces it.
    pub statuses: Vec<LimitStatus>,
    /// Namespaces are allowed inside.
    pub nested: bool,
    /// Created with `allow_unlimited`.
    pub unlimited: bool,
    /// Its programs are given a token for it, and a way to the server.
    pub self_access: bool,
    /// Host name inside, when one was asked for.
    pub hostname: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whose it is.
    pub holder: Holder,
    /// Started at every boot.
    pub command: Option<ExecSpec>,
    /// Idle time that ends it.
    pub idle_ms: Option<u64>,
    /// Walls of the present boot.
    pub walls: Option<Walls>,
    /// A throw-away workspace of `run`: it ends with its command or its client.
    pub ephemeral: bool,
    /// How many variables its environment was given; the values are not recorded.
    pub env_count: u64,
    /// The present boot was started without them, after a restart of the server.
    pub env_lost: bool,
}

/// A workspace as recorded. Times are kept to the millisecond.
#[derive(Clone, Debug)]
pub struct WorkspaceRow {
    /// Id.
    pub id: WorkspaceId,
    /// Name: unique among rows that are neither destroyed nor being destroyed.
    pub name: WorkspaceName,
    /// State.
    pub state: WorkspaceState,
    /// Why, when it failed or stopped by itself.
    pub reason: Option<String>,
    /// Incarnation.
    pub boot: u64,
    /// Image it stands on.
    pub image_id: ImageId,
    /// Name that image was asked for by.
    pub image_name: ImageName,
    /// The rest of what it is.
    pub spec: WorkspaceSpec,
    /// Where it came from.
    pub lineage: Lineage,
    /// Host pid of its guest, while one may live.
    pub pid: Option<i32>,
    /// Field 22 of `/proc/PID/stat` for that pid: together they name one process for ever.
    pub start_time: Option<u64>,
    /// Its range of host uids, counted from the configuration's base; unique.
    pub uid_slot: Option<u32>,
    /// What opens the guest's channel in this boot.
    pub secret: Option<BootSecret>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the present boot began.
    pub started_at: Option<Timestamp>,
    /// When its TTL ends it.
    pub expires_at: Option<Timestamp>,
    /// When it last had work. An update never moves it backwards.
    pub last_active_at: Timestamp,
    /// The snapshot its disk descends from.
    pub base_snapshot: Option<SnapshotId>,
}

/// Whether a snapshot can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Recorded; its disk is being made. After a crash it is undone.
    Creating,
    /// Usable.
    Ready,
    /// Being removed. After a crash it is finished.
    Removing,
}

impl SnapshotState {
    /// The state as it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }
}

/// A snapshot as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotRow {
    /// Id.
    pub id: SnapshotId,
    /// Name: unique among the snapshots of its workspace.
    pub name: SnapshotName,
    /// State.
    pub state: SnapshotState,
    /// The workspace it was taken of, which may be gone.
    pub workspace: WorkspaceId,
    /// That workspace's name at the time.
    pub workspace_name: WorkspaceName,
    /// Boot it was taken in.
    pub boot: u64,
    /// The snapshot that the workspace's disk descended from at the time.
    pub parent: Option<SnapshotId>,
    /// What it holds.
    pub kind: SnapshotKind,
    /// Image the workspace stands on.
    pub image_id: ImageId,
    /// Name that image was asked for by.
    pub image_name: ImageName,
    /// What the workspace was: a fork may only be narrower.
    pub spec: WorkspaceSpec,
    /// Where the workspace came from.
    pub lineage: Lineage,
    /// Bytes it can reach.
    pub referenced_bytes: Option<u64>,
    /// Bytes that removing it would free.
    pub exclusive_bytes: Option<u64>,
    /// How it was made.
    pub method: String,
    /// When.
    pub created_at: Timestamp,
}

/// Something that happened, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What: `workspace.create`, `workspace.expired`, …
    pub kind: String,
    /// On what: an id, or the reference as it was typed; empty for the server itself.
    pub object: String,
    /// By whom: the principal's id, or `server`.
    pub principal: String,
    /// The rest, without secrets.
    pub detail: serde_json::Value,
}

/// Something that happened, as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// Position: greater than every earlier one, never used twice.
    pub seq: i64,
    /// What happened.
    pub event: Event,
}
