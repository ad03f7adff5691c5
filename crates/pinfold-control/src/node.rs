//! What the control plane asks of a machine that runs workspaces.
//!
//! This trait is the authority for the signatures: `LocalNode` has the same methods, and
//! `local.rs` only forwards. A `reference` is a workspace's, snapshot's or image's id or name. All
//! values have been checked when they arrive here. Every method may be cancelled by dropping its
//! future; the node then finishes or undoes what it began.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use futures_util::Stream;
use pinfold_proto::{ArchiveOptions, Archived, FileList, WriteOptions};
use pinfold_types::{
    ExecId, Result,
    access::{Holder, Holding, SnapshotHolding},
    api::{
        CreateBackup, DoctorReport, FileInfo, PortInfo, RecoveryAction, Removed, RemovedImages,
        RunRequest, WatchEvent, WorkspaceLogs,
    },
    exec::{ExecInfo, ExecSpec},
    image::{BuildImage, ImageInfo, ImageProgress, ImportImage, PullImage},
    limits::ResourceLimits,
    snapshot::{CreateSnapshot, SnapshotInfo},
    workspace::{
        CreateWorkspace, ForkOutcome, ForkWorkspace, UpdateWorkspace, WorkspaceInfo, WorkspaceStats,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::ExecSession;

/// Bytes as they come. An error is the last item.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;
/// Where long image work tells how far it is. Nobody listening is no reason to stop.
pub type Progress = mpsc::Sender<ImageProgress>;

/// A result that arrives later, on any thread.
macro_rules! later {
    ($type:ty) => { impl Future<Output = Result<$type>> + Send };
}

/// A machine that runs workspaces.
pub trait Node: Send + Sync + 'static {
    /// A command's streams.
    type Exec: ExecSession;
    /// A TCP connection into a workspace, with half-close.
    type Tcp: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// What this machine can do.
    fn doctor(&self) -> later!(DoctorReport);
    /// What recovery did when the node was opened.
    fn recovery(&self) -> Vec<RecoveryAction>;

    /// Makes a workspace, and starts it unless asked not to.
    fn create(&self, request: CreateWorkspace) -> later!(WorkspaceInfo);
    /// All workspaces. Answered from memory.
    fn list(&self) -> Vec<WorkspaceInfo>;
    /// One workspace. Answered from memory.
    fn get(&self, reference: &str) -> Result<WorkspaceInfo>;
    /// Whose a workspace is. Answered from memory.
    fn holding(&self, reference: &str) -> Result<Holding>;
    /// Whose every workspace is. Answered from memory.
    fn holdings(&self) -> Vec<Holding>;
    /// Gives a workspace from one holder to another; `conflict` when it is not `from`'s any more.
    fn hand_over(&self, reference: &str, from: Holder, to: Holder) -> later!(());
    /// Whose a snapshot is.
    fn snapshot_holding(&self, reference: &str) -> later!(SnapshotHolding);
    /// The limits that a new workspace would get. Answered from memory.
    fn limits_for(&self, request: &CreateWorkspace) -> Result<ResourceLimits>;
    /// Changes a workspace.
    fn update(&self, reference: &str, change: UpdateWorkspace) -> later!(WorkspaceInfo);
    /// Boots a stopped workspace.
    fn start(&self, reference: &str) -> later!(WorkspaceInfo);
    /// Ends its processes.
    fn stop(&self, reference: &str) -> later!(WorkspaceInfo);
    /// Freezes its processes.
    fn pause(&self, reference: &str) -> later!(WorkspaceInfo);
    /// Thaws its processes.
    fn resume(&self, reference: &str) -> later!(WorkspaceInfo);
    /// Removes a workspace.
    fn destroy(&self, reference: &str) -> later!(());
    /// Puts its disk back to one of its snapshots.
    fn restore(&self, reference: &str, snapshot: &str) -> later!(WorkspaceInfo);
    /// Makes children of a workspace, each with a result or an error.
    fn fork(&self, reference: &str, request: ForkWorkspace) -> later!(Vec<ForkOutcome>);
    /// What it uses now.
    fn stats(&self, reference: &str) -> later!(WorkspaceStats);
    /// What happened to it, and its start-up command's last output.
    fn logs(&self, reference: &str, after: i64) -> later!(WorkspaceLogs);

    /// A throw-away workspace with one command. It is gone before the stream says `Exited`, and
    /// ends when the stream is dropped.
    fn run(&self, request: RunRequest) -> later!((WorkspaceInfo, Self::Exec));
    /// Starts a command.
    fn exec(&self, reference: &str, spec: ExecSpec) -> later!(Self::Exec);
    /// Joins a command's streams.
    fn attach(&self, reference: &str, exec: ExecId, from: Option<u64>) -> later!(Self::Exec);
    /// Commands that run, or ended a short while ago.
    fn execs(&self, reference: &str) -> later!(Vec<ExecInfo>);
    /// Sends a signal to a command's process group.
    fn signal(&self, reference: &str, exec: ExecId, signal: i32) -> later!(());

    /// Facts of a path.
    fn stat_file(&self, reference: &str, path: &str) -> later!(FileInfo);
    /// A page of a directory.
    fn list_files(
        &self,
        reference: &str,
        path: &str,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> later!(FileList);
    /// A file's bytes.
    fn read_file(
        &self,
        reference: &str,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> later!(ByteStream);
    /// Writes a file.
    fn write_file(
        &self,
        reference: &str,
        path: &str,
        options: WriteOptions,
        content: ByteStream,
    ) -> later!(FileInfo);
    /// Makes a directory.
    fn make_dir(&self, reference: &str, path: &str, mode: Option<u32>, parents: bool)
    -> later!(());
    /// Moves a file or directory.
    fn rename_file(&self, reference: &str, from: &str, to: &str) -> later!(());
    /// Removes a file or directory.
    fn remove_file(&self, reference: &str, path: &str, recursive: bool) -> later!(());
    /// Changes permission bits.
    fn chmod_file(&self, reference: &str, path: &str, mode: u32) -> later!(());
    /// Changes below a path, until the receiver is dropped.
    fn watch_files(
        &self,
        reference: &str,
        path: &str,
        recursive: bool,
    ) -> later!(mpsc::Receiver<WatchEvent>);
    /// A tar of a file or directory.
    fn get_archive(&self, reference: &str, path: &str) -> later!(ByteStream);
    /// Unpacks a tar.
    fn put_archive(
        &self,
        reference: &str,
        path: &str,
        options: ArchiveOptions,
        content: ByteStream,
    ) -> later!(Archived);
    /// A TCP connection to a port inside.
    fn tcp(&self, reference: &str, port: u16) -> later!(Self::Tcp);
    /// Ports that something inside listens on.
    fn ports(&self, reference: &str) -> later!(Vec<PortInfo>);

    /// Takes a snapshot.
    fn snapshot(&self, reference: &str, request: CreateSnapshot) -> later!(SnapshotInfo);
    /// Snapshots of one workspace, or all, oldest first.
    fn snapshots(&self, of: Option<&str>) -> later!(Vec<SnapshotInfo>);
    /// One snapshot.
    fn get_snapshot(&self, reference: &str) -> later!(SnapshotInfo);
    /// Removes a snapshot.
    fn remove_snapshot(&self, reference: &str) -> later!(Removed);
    /// Makes workspaces from a snapshot.
    fn fork_snapshot(&self, reference: &str, request: ForkWorkspace) -> later!(Vec<ForkOutcome>);

    /// All images, oldest first.
    fn images(&self) -> later!(Vec<ImageInfo>);
    /// One image.
    fn get_image(&self, reference: &str) -> later!(ImageInfo);
    /// Removes an image, or one of its names.
    fn remove_image(&self, reference: &str) -> later!(RemovedImages);
    /// Fetches an image.
    fn pull_image(&self, request: PullImage, progress: Progress) -> later!(ImageInfo);
    /// Makes an image of an archive, directory or Debian release. `content` is the upload, empty
    /// where the request names none.
    fn import_image(
        &self,
        request: ImportImage,
        content: ByteStream,
        progress: Progress,
    ) -> later!(ImageInfo);
    /// Makes an image from steps. `content` is the uploaded context, empty where there is none.
    fn build_image(
        &self,
        request: BuildImage,
        content: ByteStream,
        progress: Progress,
    ) -> later!(ImageInfo);
    /// Removes what nothing names or stands on.
    fn prune_images(&self) -> later!(RemovedImages);
    /// This home in one encrypted stream.
    fn backup(&self, request: CreateBackup) -> later!(ByteStream);

    /// An image as an OCI archive.
    fn export_image(&self, reference: &str) -> later!(ByteStream);
}
