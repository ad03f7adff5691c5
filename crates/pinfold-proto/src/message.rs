//! Requests, replies and messages, all JSON.

use std::{collections::BTreeMap, fmt};

use pinfold_types::{
    ExecId,
    api::FileInfo,
    exec::{ExecSpec, TtySize},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most entries of one page of [`Request::List`].
pub const MAX_LIST: usize = 1000;

/// What the host asks for. One per stream.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// The next connection of a program inside to [`crate::API_SOCKET`]: a message when there is
    /// one, then its bytes both ways.
    Api,
    /// Starts a command.
    Exec {
        /// Chosen by the host, new.
        id: ExecId,
        /// What to run.
        spec: Box<ExecSpec>,
    },
    /// Joins a command that was started before.
    Attach {
        /// Which.
        id: ExecId,
        /// Offset of the first output byte wanted; absent: as far back as there is.
        #[serde(default)]
        from: Option<u64>,
    },
    /// Commands known, as a list of `ExecInfo`.
    Execs,
    /// Signals a command's process group.
    Signal {
        /// Which.
        id: ExecId,
        /// 1 to 64.
        signal: i32,
    },
    /// Replaces the environment that commands start with.
    SetEnv {
        /// All of it.
        env: BTreeMap<String, String>,
    },
    /// Facts of one path, as `FileInfo`.
    Stat {
        /// Path.
        path: String,
    },
    /// One page of a directory, as [`FileList`].
    List {
        /// Path.
        path: String,
        /// Names after this one in byte order.
        #[serde(default)]
        after: Option<String>,
        /// At most [`MAX_LIST`].
        #[serde(default)]
        limit: Option<usize>,
    },
    /// Content of a file.
    Read {
        /// Path.
        path: String,
        /// From here.
        #[serde(default)]
        offset: u64,
        /// This much; absent: to the end.
        #[serde(default)]
        length: Option<u64>,
    },
    /// Writes a file, as `FileInfo`.
    Write {
        /// Path.
        path: String,
        /// How.
        #[serde(flatten)]
        options: WriteOptions,
    },
    /// Makes a directory.
    Mkdir {
        /// Path.
        path: String,
        /// Permission bits, default 0o755.
        #[serde(default)]
        mode: Option<u32>,
        /// Makes missing parents, and does not mind that it exists.
        #[serde(default)]
        parents: bool,
    },
    /// Moves within one file system, replacing what is there.
    Rename {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// Removes. Symbolic links are removed, never followed.
    Remove {
        /// Path.
        path: String,
        /// With all that is below.
        #[serde(default)]
        recursive: bool,
    },
    /// Changes permission bits.
    Chmod {
        /// Path.
        path: String,
        /// 0o7777.
        mode: u32,
    },
    /// Changes the owner, of the link itself where it is one.
    Chown {
        /// Path.
        path: String,
        /// User inside.
        uid: u32,
        /// Group inside.
        gid: u32,
    },
    /// Changes below a path: one empty message once it watches, then `WatchEvent`s as data.
    Watch {
        /// Path.
        path: String,
        /// Directories below too.
        #[serde(default)]
        recursive: bool,
    },
    /// A path as tar.
    ArchiveGet {
        /// Path.
        path: String,
    },
    /// Unpacks a tar below a directory, as [`Archived`].
    ArchivePut {
        /// Directory.
        path: String,
        /// How.
        #[serde(default)]
        options: ArchiveOptions,
    },
    /// A TCP connection to a port on the workspace's loopback.
    Tcp {
        /// Port.
        port: u16,
    },
    /// Listening TCP ports, as a list of `PortInfo`.
    Ports,
    /// What the workspace uses, as [`GuestStats`].
    Stats,
    /// TERM to all, KILL after the grace, then the guest exits.
    Shutdown {
        /// How long programs have.
        grace_ms: u64,
    },
}

impl fmt::Debug for Request {
    /// The operation's name only: paths and environments may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::Execs => "execs",
            Self::Signal { .. } => "signal",
            Self::SetEnv { .. } => "set_env",
            Self::Stat { .. } => "stat",
            Self::List { .. } => "list",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Mkdir { .. } => "mkdir",
            Self::Rename { .. } => "rename",
            Self::Remove { .. } => "remove",
            Self::Chmod { .. } => "chmod",
            Self::Chown { .. } => "chown",
            Self::Watch { .. } => "watch",
            Self::ArchiveGet { .. } => "archive_get",
            Self::ArchivePut { .. } => "archive_put",
            Self::Api => "api",
            Self::Tcp { .. } => "tcp",
            Self::Ports => "ports",
            Self::Stats => "stats",
            Self::Shutdown { .. } => "shutdown",
        })
    }
}

/// How to write a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WriteOptions {
    /// Writes into the file at this offset, making it if need be. Absent: the whole file is
    /// replaced at once when all bytes have come; until then, and on any error, the old one stays.
    pub offset: Option<u64>,
    /// Permission bits. Absent: the old file's, or 0o644.
    pub mode: Option<u32>,
    /// Makes missing directories.
    pub create_parents: bool,
}

/// How to unpack an archive.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, as in tar")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveOptions {
    /// Owners from the archive; else all is root's.
    pub owners: bool,
    /// Modification times from the archive.
    pub times: bool,
    /// `user.*` extended attributes from the archive.
    pub xattrs: bool,
    /// Makes the directory when it is missing.
    pub create: bool,
    /// Most bytes of content; beyond is an error. Absent: what the disk holds.
    pub max_bytes: Option<u64>,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self { owners: true, times: true, xattrs: false, create: true, max_bytes: None }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Archived {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Entries left out, such as sockets.
    pub skipped: u64,
}

/// One page of a directory, in byte order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FileList {
    /// Entries.
    pub entries: Vec<FileInfo>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// First message before the bytes of a file or archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileStart {
    /// The file; absent for archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<FileInfo>,
}

/// First message of an exec stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecStarted {
    /// Process id inside.
    pub pid: i32,
    /// Offset of the first byte that follows, over both outputs together.
    pub offset: u64,
    /// Bytes before it, after what was asked for, that are no longer held.
    pub lost_bytes: u64,
}

/// Messages on an exec stream after the first: from the host, except `Lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecControl {
    /// The terminal has a new size.
    Resize {
        /// New size.
        size: TtySize,
    },
    /// A signal for the process group.
    Signal {
        /// 1 to 64.
        signal: i32,
    },
    /// From the guest: this reader was too slow for a command that does not wait, and this many
    /// bytes before the next were dropped.
    Lost {
        /// How many.
        bytes: u64,
    },
}

/// What a workspace uses, as far as it can be seen from inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestStats {
    /// Running commands.
    pub execs: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Since the guest started.
    pub uptime_ms: u64,
    /// Load of the whole machine is not this workspace's; CPU time of its reaped and living
    /// processes is.
    pub cpu_usec: u64,
    /// Proportional memory of all processes is too dear to sum; this is resident memory, shared
    /// pages counted in each.
    pub resident_bytes: u64,
    /// The guest's own resident memory.
    pub guest_resident_bytes: u64,
    /// Bytes used on the file system of `/`.
    pub disk_used_bytes: u64,
    /// Bytes free there.
    pub disk_free_bytes: u64,
}

/// Reserved for the gate: what a stream opened by the guest asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbound {
    /// Boot it comes from.
    pub boot: u64,
    /// Name the program asked for, or an address.
    pub name: String,
    /// Port.
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round(request: &Request) {
        let text = serde_json::to_string(request).expect("text");
        let back: Request = serde_json::from_str(&text).expect("round trip");
        assert_eq!(serde_json::to_string(&back).expect("text"), text);
    }

    #[test]
    fn requests_round_trip_and_debug_hides_their_content() {
        let id = ExecId::generate();
        let path = || "/secret/place".to_owned();
        let mut spec = ExecSpec::argv(["echo", "hi"]);
        spec.env.insert("TOKEN".into(), "hunter2".into());
        spec.tty = Some(TtySize { cols: 80, rows: 24 });
        let all = [
            Request::Exec { id, spec: Box::new(spec) },
            Request::Attach { id, from: Some(7) },
            Request::Execs,
            Request::Signal { id, signal: 15 },
            Request::SetEnv { env: BTreeMap::from([("TOKEN".into(), "hunter2".into())]) },
            Request::Stat { path: path() },
            Request::List { path: path(), after: Some("x".into()), limit: Some(3) },
            Request::Read { path: path(), offset: 5, length: None },
            Request::Write {
                path: path(),
                options: WriteOptions {
                    offset: Some(u64::MAX),
                    mode: Some(0o600),
                    create_parents: true,
                },
            },
            Request::Mkdir { path: path(), mode: None, parents: true },
            Request::Rename { from: path(), to: path() },
            Request::Remove { path: path(), recursive: true },
            Request::Chmod { path: path(), mode: 0o7777 },
            Request::Chown { path: path(), uid: u32::MAX, gid: 0 },
            Request::Watch { path: path(), recursive: true },
            Request::ArchiveGet { path: path() },
            Request::ArchivePut { path: path(), options: ArchiveOptions::default() },
            Request::Tcp { port: 65535 },
            Request::Ports,
            Request::Stats,
            Request::Shutdown { grace_ms: 1 },
        ];
        for request in &all {
            round(request);
            let shown = format!("{request:?}");
            assert!(!shown.contains("secret") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn later_fields_are_ignored_and_later_requests_are_an_error() {
        let old: Request =
            serde_json::from_str(r#"{"op":"read","path":"/a","later":true}"#).expect("tolerant");
        assert!(matches!(old, Request::Read { offset: 0, length: None, .. }));
        assert!(serde_json::from_str::<Request>(r#"{"op":"teleport"}"#).is_err());
    }

    proptest! {
        #[test]
        fn wild_json_never_panics(text in "\\PC{0,120}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_str::<Request>(&text);
            let _ = serde_json::from_slice::<Request>(&bytes);
            let _ = serde_json::from_slice::<ExecControl>(&bytes);
        }

        #[test]
        fn any_path_and_offset_survive(path in "\\PC{0,80}", offset: u64, length: Option<u64>) {
            round(&Request::Read { path, offset, length });
        }
    }
}
