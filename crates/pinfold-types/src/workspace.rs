//! Workspaces as callers ask for them and see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorCode, ImageName, PrincipalId, SessionId, SnapshotId, WorkspaceId, WorkspaceName,
    WorkspaceState,
    access::Holder,
    exec::{ExecSpec, check_env},
    limits::{LimitStatus, MAX_FORK_COUNT, MAX_LABELS, MAX_TIMEOUT_MS, ResourceLimits},
    schema, unique,
};

/// What a workspace may reach. Closed until the gate is built: only `deny_all` exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressMode {
    /// A loopback and nothing else.
    #[default]
    DenyAll,
}

/// A request for a new workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that a caller asks for")]
pub struct CreateWorkspace {
    /// Unique among workspaces; made up from two words when absent.
    pub name: Option<WorkspaceName>,
    /// Default: the configuration's, at first `host`.
    pub image: Option<ImageName>,
    /// Limits; absent ones take the profile's.
    pub limits: ResourceLimits,
    /// Allow user and mount namespaces inside, for rootless containers. Every other wall stands.
    pub nested: bool,
    /// Create even where memory, CPU or process limits cannot be enforced. Recorded.
    pub allow_unlimited: bool,
    /// Give its programs a token for a few operations on it, such as to snapshot and fork it, and
    /// a socket that leads to the server (AUTH-08). Its forks are given theirs.
    pub self_access: bool,
    /// Environment of every command. Held in the guest's memory only.
    #[serde(deserialize_with = "unique::map")]
    #[schemars(schema_with = "schema::env")]
    pub env: BTreeMap<String, String>,
    /// Host name inside. Default: the name.
    #[schemars(regex(pattern = schema::HOST_NAME), length(min = 1, max = 63))]
    pub hostname: Option<String>,
    /// Destroyed this long after creation.
    #[schemars(range(min = 1, max = 12 * MAX_TIMEOUT_MS))]
    pub ttl_ms: Option<u64>,
    /// Destroyed after this long without a command, stream or file operation.
    #[schemars(range(min = 1, max = 12 * MAX_TIMEOUT_MS))]
    pub idle_ms: Option<u64>,
    /// Started at every boot, in the background.
    pub command: Option<ExecSpec>,
    /// Do not start it now.
    pub stopped: bool,
    /// Free labels.
    #[serde(deserialize_with = "unique::map")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Whom it is made for: filled in by the control plane, never by a caller.
    #[serde(skip)]
    pub holder: Holder,
}

impl CreateWorkspace {
    /// Checks everything that needs no machine.
    pub fn check(&self) -> Result<(), Error> {
        self.limits.check()?;
        check_env(&self.env)?;
        for (field, value) in [("ttl_ms", self.ttl_ms), ("idle_ms", self.idle_ms)] {
            if value.is_some_and(|ms| ms == 0 || ms > 12 * MAX_TIMEOUT_MS) {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("{field} must be 1 to {} (360 days)", 12 * MAX_TIMEOUT_MS),
                ));
            }
        }
        if let Some(hostname) = &self.hostname {
            let fine = (1..=63).contains(&hostname.len())
                && hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !hostname.starts_with('-')
                && !hostname.ends_with('-');
            if !fine {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("{:?} is not a host name", crate::name::excerpt(hostname)),
                )
                .hint("1 to 63 letters, digits and hyphens, no hyphen at either end"));
            }
        }
        if self.labels.len() > MAX_LABELS
            || self.labels.iter().any(|(key, value)| {
                key.is_empty()
                    || key.chars().count() > 63
                    || value.chars().count() > 255
                    || key.chars().chain(value.chars()).any(char::is_control)
            })
        {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "labels: at most {MAX_LABELS}, keys of 1 to 63 characters, values of at most 255, no control characters"
                ),
            ));
        }
        self.command.as_ref().map_or(Ok(()), ExecSpec::check)
    }
}

/// Changes to a workspace; absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateWorkspace {
    /// New name.
    pub name: Option<WorkspaceName>,
    /// New values of the limits named; applied at once to a running workspace.
    pub limits: ResourceLimits,
    /// From now. 0 removes it.
    #[schemars(range(max = 12 * MAX_TIMEOUT_MS))]
    pub ttl_ms: Option<u64>,
    /// 0 removes it.
    #[schemars(range(max = 12 * MAX_TIMEOUT_MS))]
    pub idle_ms: Option<u64>,
    /// Replaces all labels.
    #[serde(deserialize_with = "unique::map_or_null")]
    #[schemars(schema_with = "schema::labels_or_null")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Where a workspace came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Lineage {
    /// The workspace it was forked from, directly or through the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<WorkspaceId>,
    /// The snapshot its disk started as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// How many forks deep.
    pub depth: u32,
}

/// The walls of the present boot, as the kernel confirmed them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Walls {
    /// `namespace`.
    pub backend: String,
    /// Whether the server runs as root or as an ordinary user.
    pub mode: String,
    /// Namespaces that are its own.
    pub namespaces: Vec<String>,
    /// Landlock ABI in force; 0 where the kernel has none.
    pub landlock_abi: u32,
    /// Whether the seccomp filter is in force.
    pub seccomp: bool,
    /// `v1`, `v2` or `none`.
    pub cgroups: String,
    /// First host uid of its range, and the range's length.
    pub uid_base: u32,
    /// Length of the uid range.
    pub uid_count: u32,
    /// Whether user namespaces are allowed inside.
    pub nested: bool,
    /// Created with `allow_unlimited`.
    pub unlimited: bool,
}

/// A workspace as callers see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceInfo {
    /// Id.
    pub id: WorkspaceId,
    /// Name.
    pub name: WorkspaceName,
    /// State.
    pub state: WorkspaceState,
    /// Why, when it failed or stopped by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Incarnation: 0 before the first start, one more each start.
    pub boot: u64,
    /// Image name.
    pub image: String,
    /// Limits as they stand, each with what enforces it.
    pub limits: Vec<LimitStatus>,
    /// Walls of the present boot; absent when stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walls: Option<Walls>,
    /// Where it came from.
    pub lineage: Lineage,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whose it is; absent: the user's who runs the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PrincipalId>,
    /// The session that owns it; absent: its owner's default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What it may reach.
    pub egress: EgressMode,
    /// Created, RFC 3339 UTC.
    pub created_at: Timestamp,
    /// Start of the present boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its TTL ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Idle time that ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Host pid of its first process, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// What its owner should know, as sentences: that its environment was lost, for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a workspace uses now. Absent fields could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkspaceStats {
    /// Memory charged now.
    pub memory_bytes: Option<u64>,
    /// CPU time since boot.
    pub cpu_usec: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Its own bytes on disk.
    pub disk_bytes: Option<u64>,
    /// OOM kills since boot.
    pub oom_kills: Option<u64>,
    /// Refused forks since boot.
    pub pids_hits: Option<u64>,
    /// Running commands.
    pub execs: u64,
    /// Time since boot.
    pub uptime_ms: u64,
}

/// A request for forks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ForkWorkspace {
    /// How many children, 1 to 1000.
    #[schemars(range(min = 1, max = MAX_FORK_COUNT))]
    pub count: u32,
    /// Name of the only child, or the stem `NAME-1`, `NAME-2`, … of several.
    pub name: Option<WorkspaceName>,
    /// Limits to narrow; wider than the source's is refused.
    pub limits: ResourceLimits,
    /// Added to the children's environment. The source's environment is not copied.
    #[serde(deserialize_with = "unique::map")]
    #[schemars(schema_with = "schema::env")]
    pub env: BTreeMap<String, String>,
    /// Started in each child; `{}` in its words is the child's number from 1.
    pub command: Option<ExecSpec>,
    /// TTL of the children.
    #[schemars(range(min = 1, max = 12 * MAX_TIMEOUT_MS))]
    pub ttl_ms: Option<u64>,
    /// Do not start them.
    pub stopped: bool,
    /// Labels of the children.
    #[serde(deserialize_with = "unique::map")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Whom they are made for: filled in by the control plane, never by a caller.
    #[serde(skip)]
    pub holder: Holder,
}

impl Default for ForkWorkspace {
    fn default() -> Self {
        Self {
            count: 1,
            name: None,
            limits: ResourceLimits::default(),
            env: BTreeMap::new(),
            command: None,
            ttl_ms: None,
            stopped: false,
            labels: BTreeMap::new(),
            holder: Holder::default(),
        }
    }
}

/// One child of a fork request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForkOutcome {
    /// It lives.
    Workspace(Box<WorkspaceInfo>),
    /// It could not be made.
    Error(Error),
}
