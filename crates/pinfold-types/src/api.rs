//! Bodies of `/api/v1` that are not nouns of their own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ExecId, SnapshotId, WorkspaceId, exec::TtySize, limits::LimitStatus, object::object, schema,
};

/// Most entries of one page.
pub const MAX_PAGE: usize = 1000;

/// A page of a list. `next` is passed back as `cursor` for the following page.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// Entries.
    pub items: Vec<T>,
    /// Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Query of a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PageQuery {
    /// From an earlier page.
    #[schemars(regex(pattern = schema::CURSOR))]
    pub cursor: Option<String>,
    /// 1 to [`MAX_PAGE`], default 100.
    #[schemars(range(min = 1, max = MAX_PAGE))]
    pub limit: Option<usize>,
}

/// Restores a workspace's disk from one of its snapshots, by id or name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreWorkspace {
    /// Snapshot id or name.
    #[schemars(schema_with = "schema::snapshot_reference")]
    pub snapshot: String,
}

/// Sends a signal to a command's process group.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalExec {
    /// Number 1 to 64.
    #[schemars(range(min = 1, max = 64))]
    pub signal: i32,
}

/// Text messages from the client on an exec WebSocket. Standard input travels as binary
/// messages, raw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ExecInput {
    /// The terminal has a new size.
    Resize {
        /// New size.
        #[serde(deserialize_with = "object")]
        size: TtySize,
    },
    /// A signal for the process group.
    Signal {
        /// Number 1 to 64.
        #[schemars(range(min = 1, max = 64))]
        signal: i32,
    },
    /// Standard input ends.
    Eof,
}

/// Text messages from the server on an exec WebSocket. Output travels as binary messages: one
/// byte, 1 for standard output and 2 for standard error, then the bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ExecOutput {
    /// The command runs. First message.
    Started {
        /// Handle for attach and signal.
        exec_id: ExecId,
        /// Workspace.
        workspace: WorkspaceId,
        /// Boot.
        boot: u64,
        /// Process id inside.
        pid: i32,
        /// Offset of the first output byte that follows, in the stream of both outputs together.
        offset: u64,
        /// Output before `offset` that the replay buffer no longer held.
        lost_bytes: u64,
    },
    /// The command ended. Last message.
    Exited {
        /// How.
        result: crate::exec::ExecResult,
    },
    /// The stream cannot go on. Last message.
    Failed {
        /// Why.
        error: crate::Error,
    },
}

/// A throw-away workspace and its one command: first message of the `/api/v1/run` WebSocket.
/// The stream then is that of an exec; `exited` is sent after the workspace is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The workspace.
    #[serde(default)]
    pub workspace: crate::workspace::CreateWorkspace,
    /// The command. Absent: the image's own.
    #[serde(default)]
    pub exec: Option<crate::exec::ExecSpec>,
}

/// Kinds of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character or block device.
    Device,
}

/// A file's facts, of the link itself where it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileInfo {
    /// Last part of the path.
    pub name: String,
    /// Kind.
    pub kind: FileKind,
    /// Bytes.
    pub size_bytes: u64,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    /// Modified, milliseconds since the epoch.
    pub modified_ms: i64,
    /// Target, of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A change below a watched path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchKind {
    /// Appeared.
    Created,
    /// Content changed.
    Modified,
    /// Mode, owner or times changed.
    Attributes,
    /// Gone.
    Removed,
    /// Moved away or here.
    Renamed,
    /// Events were lost; look again.
    Overflow,
}

/// One watch event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// Path relative to the watched one.
    pub path: String,
}

/// A listening TCP port inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortInfo {
    /// Port.
    pub port: u16,
    /// Address it listens on inside.
    pub address: String,
}

/// The server about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerInfo {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Home directory.
    pub home: String,
    /// Since when, milliseconds.
    pub uptime_ms: u64,
    /// Workspaces by state.
    pub workspaces: std::collections::BTreeMap<String, u64>,
}

/// Whether something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Stands.
    Ok,
    /// Works with less than the best; the text says what is missing.
    Degraded,
    /// Missing; workspaces that need it are refused.
    Missing,
}

/// One line of `pinfold doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Group: `isolation`, `limits`, `disk`, `images`, `server`.
    pub area: String,
    /// What was tried.
    pub check: String,
    /// Outcome.
    pub verdict: Verdict,
    /// What was seen, with numbers where cost is meant.
    pub detail: String,
    /// The command or change that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// What this machine can do for this user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorReport {
    /// `root` or `user`.
    pub mode: String,
    /// All findings.
    pub findings: Vec<Finding>,
    /// Every limit, with what enforces it here.
    pub limits: Vec<LimitStatus>,
}

/// Makes a backup. Everything is in it unless it is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreateBackup {
    /// Leave out the layers of images: those from a registry can be fetched again.
    pub without_images: bool,
    /// Leave out the disks of workspaces and snapshots.
    pub without_disks: bool,
}

/// What recovery did, one action a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryAction {
    /// Kind of object: `workspace`, `snapshot`, `disk`, `cgroup`, `mount`, `image`.
    pub kind: String,
    /// Its id or path.
    pub object: String,
    /// What was done: `adopted`, `finished`, `undone`, `reclaimed`, `marked stopped`.
    pub action: String,
    /// Why.
    pub reason: String,
}

/// Removing a snapshot answers with what it freed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Snapshots removed.
    pub snapshots: Vec<SnapshotId>,
    /// Bytes freed, as far as known.
    pub freed_bytes: u64,
}

/// Removing or pruning images answers with what it freed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedImages {
    /// Images removed. Empty when only a name was.
    pub images: Vec<crate::ImageId>,
    /// Bytes freed, as far as known.
    pub freed_bytes: u64,
}

/// One thing that happened, as recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventInfo {
    /// Position; greater than every earlier one.
    pub seq: i64,
    /// When, RFC 3339 UTC.
    pub at: jiff::Timestamp,
    /// What: an operation's name, or what the server did by itself.
    pub kind: String,
    /// On what.
    pub object: String,
    /// By whom: a principal's id, or `server`.
    pub principal: String,
    /// The rest.
    pub detail: serde_json::Value,
}

/// Query of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events after this position. Absent: those from now on. `Last-Event-ID` overrules it.
    pub after: Option<i64>,
}

/// Some output of a command, in an event of kind `stdout` or `stderr`. The event's own id is the
/// offset after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecChunk {
    /// Offset of its first byte in the stream of both outputs together.
    pub offset: u64,
    /// The bytes in base64 (RFC 4648 §4).
    pub data_base64: String,
}

/// Query of a workspace's logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogsQuery {
    /// Only events after this position.
    pub after: Option<i64>,
}

/// What `pinfold logs` shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkspaceLogs {
    /// What happened to it, oldest first, at most [`MAX_PAGE`]; the last one's `seq` is the
    /// `after` of the next call.
    pub events: Vec<EventInfo>,
    /// The last output of its start-up command, lossy UTF-8.
    pub output: String,
    /// Bytes of output before that, which are no longer held.
    pub lost_bytes: u64,
    /// Bytes of output so far: where following it goes on.
    pub end: u64,
    /// The start-up command of this boot, to be attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<ExecId>,
}
