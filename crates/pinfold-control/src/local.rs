//! The machine that the server runs on.

use bytes::Bytes;
use pinfold_node::{ExecHandle, ExecStream, LocalNode, Tunnel};
use pinfold_proto::{ArchiveOptions, Archived, FileList, WriteOptions};
use pinfold_types::{
    ExecId, Result,
    access::{Holder, Holding, SnapshotHolding},
    api::{
        CreateBackup, DoctorReport, FileInfo, PortInfo, RecoveryAction, Removed, RemovedImages,
        RunRequest, WatchEvent, WorkspaceLogs,
    },
    exec::{ExecInfo, ExecSpec, TtySize},
    image::{BuildImage, ImageInfo, ImportImage, PullImage},
    limits::ResourceLimits,
    snapshot::{CreateSnapshot, SnapshotInfo},
    workspace::{
        CreateWorkspace, ForkOutcome, ForkWorkspace, UpdateWorkspace, WorkspaceInfo, WorkspaceStats,
    },
};
use tokio::sync::mpsc;

use crate::{ByteStream, ExecEvent, ExecInput, ExecSession, ExecStart, Node, Progress};

impl ExecSession for ExecStream {
    type Input = ExecHandle;

    fn start(&self) -> ExecStart {
        ExecStart {
            exec_id: self.exec_id,
            workspace: self.workspace,
            boot: self.boot,
            pid: self.pid,
            offset: self.offset,
            lost_bytes: self.lost_bytes,
        }
    }

    async fn next(&mut self) -> Option<ExecEvent> {
        Some(match ExecStream::next(self).await? {
            pinfold_node::ExecEvent::Stdout(bytes) => ExecEvent::Stdout(bytes),
            pinfold_node::ExecEvent::Stderr(bytes) => ExecEvent::Stderr(bytes),
            pinfold_node::ExecEvent::Exited(result) => ExecEvent::Exited(result),
            pinfold_node::ExecEvent::Failed(error) => ExecEvent::Failed(error),
        })
    }

    fn input(&self) -> ExecHandle {
        ExecStream::input(self)
    }
}

impl ExecInput for ExecHandle {
    async fn write(&self, bytes: Bytes) -> Result<()> {
        ExecHandle::write(self, bytes).await
    }

    async fn eof(&self) -> Result<()> {
        ExecHandle::eof(self).await
    }

    async fn resize(&self, size: TtySize) -> Result<()> {
        ExecHandle::resize(self, size).await
    }

    async fn signal(&self, signal: i32) -> Result<()> {
        ExecHandle::signal(self, signal).await
    }
}

/// Every function is the one of the same name.
impl Node for LocalNode {
    type Exec = ExecStream;
    type Tcp = Tunnel;

    async fn doctor(&self) -> Result<DoctorReport> {
        LocalNode::doctor(self).await
    }

    fn recovery(&self) -> Vec<RecoveryAction> {
        LocalNode::recovery(self)
    }

    async fn create(&self, request: CreateWorkspace) -> Result<WorkspaceInfo> {
        LocalNode::create(self, request).await
    }

    fn list(&self) -> Vec<WorkspaceInfo> {
        LocalNode::list(self)
    }

    fn get(&self, reference: &str) -> Result<WorkspaceInfo> {
        LocalNode::get(self, reference)
    }

    fn holding(&self, reference: &str) -> Result<Holding> {
        LocalNode::holding(self, reference)
    }

    fn holdings(&self) -> Vec<Holding> {
        LocalNode::holdings(self)
    }

    async fn hand_over(&self, reference: &str, from: Holder, to: Holder) -> Result<()> {
        LocalNode::hand_over(self, reference, from, to).await
    }

    async fn snapshot_holding(&self, reference: &str) -> Result<SnapshotHolding> {
        LocalNode::snapshot_holding(self, reference).await
    }

    fn limits_for(&self, request: &CreateWorkspace) -> Result<ResourceLimits> {
        LocalNode::limits_for(self, request)
    }

    async fn update(&self, reference: &str, change: UpdateWorkspace) -> Result<WorkspaceInfo> {
        LocalNode::update(self, reference, change).await
    }

    async fn start(&self, reference: &str) -> Result<WorkspaceInfo> {
        LocalNode::start(self, reference).await
    }

    async fn stop(&self, reference: &str) -> Result<WorkspaceInfo> {
        LocalNode::stop(self, reference).await
    }

    async fn pause(&self, reference: &str) -> Result<WorkspaceInfo> {
        LocalNode::pause(self, reference).await
    }

    async fn resume(&self, reference: &str) -> Result<WorkspaceInfo> {
        LocalNode::resume(self, reference).await
    }

    async fn destroy(&self, reference: &str) -> Result<()> {
        LocalNode::destroy(self, reference).await
    }

    async fn restore(&self, reference: &str, snapshot: &str) -> Result<WorkspaceInfo> {
        LocalNode::restore(self, reference, snapshot).await
    }

    async fn fork(&self, reference: &str, request: ForkWorkspace) -> Result<Vec<ForkOutcome>> {
        LocalNode::fork(self, reference, request).await
    }

    async fn stats(&self, reference: &str) -> Result<WorkspaceStats> {
        LocalNode::stats(self, reference).await
    }

    async fn logs(&self, reference: &str, after: i64) -> Result<WorkspaceLogs> {
        LocalNode::logs(self, reference, after).await
    }

    async fn run(&self, request: RunRequest) -> Result<(WorkspaceInfo, Self::Exec)> {
        LocalNode::run(self, request).await
    }

    async fn exec(&self, reference: &str, spec: ExecSpec) -> Result<Self::Exec> {
        LocalNode::exec(self, reference, spec).await
    }

    async fn attach(&self, reference: &str, exec: ExecId, from: Option<u64>) -> Result<Self::Exec> {
        LocalNode::attach(self, reference, exec, from).await
    }

    async fn execs(&self, reference: &str) -> Result<Vec<ExecInfo>> {
        LocalNode::execs(self, reference).await
    }

    async fn signal(&self, reference: &str, exec: ExecId, signal: i32) -> Result<()> {
        LocalNode::signal(self, reference, exec, signal).await
    }

    async fn stat_file(&self, reference: &str, path: &str) -> Result<FileInfo> {
        LocalNode::stat_file(self, reference, path).await
    }

    async fn list_files(
        &self,
        reference: &str,
        path: &str,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<FileList> {
        LocalNode::list_files(self, reference, path, after, limit).await
    }

    async fn read_file(
        &self,
        reference: &str,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<ByteStream> {
        LocalNode::read_file(self, reference, path, offset, length).await
    }

    async fn write_file(
        &self,
        reference: &str,
        path: &str,
        options: WriteOptions,
        content: ByteStream,
    ) -> Result<FileInfo> {
        LocalNode::write_file(self, reference, path, options, content).await
    }

    async fn make_dir(
        &self,
        reference: &str,
        path: &str,
        mode: Option<u32>,
        parents: bool,
    ) -> Result<()> {
        LocalNode::make_dir(self, reference, path, mode, parents).await
    }

    async fn rename_file(&self, reference: &str, from: &str, to: &str) -> Result<()> {
        LocalNode::rename_file(self, reference, from, to).await
    }

    async fn remove_file(&self, reference: &str, path: &str, recursive: bool) -> Result<()> {
        LocalNode::remove_file(self, reference, path, recursive).await
    }

    async fn chmod_file(&self, reference: &str, path: &str, mode: u32) -> Result<()> {
        LocalNode::chmod_file(self, reference, path, mode).await
    }

    async fn watch_files(
        &self,
        reference: &str,
        path: &str,
        recursive: bool,
    ) -> Result<mpsc::Receiver<WatchEvent>> {
        LocalNode::watch_files(self, reference, path, recursive).await
    }

    async fn get_archive(&self, reference: &str, path: &str) -> Result<ByteStream> {
        LocalNode::get_archive(self, reference, path).await
    }

    async fn put_archive(
        &self,
        reference: &str,
        path: &str,
        options: ArchiveOptions,
        content: ByteStream,
    ) -> Result<Archived> {
        LocalNode::put_archive(self, reference, path, options, content).await
    }

    async fn tcp(&self, reference: &str, port: u16) -> Result<Self::Tcp> {
        LocalNode::tcp(self, reference, port).await
    }

    async fn ports(&self, reference: &str) -> Result<Vec<PortInfo>> {
        LocalNode::ports(self, reference).await
    }

    async fn snapshot(&self, reference: &str, request: CreateSnapshot) -> Result<SnapshotInfo> {
        LocalNode::snapshot(self, reference, request).await
    }

    async fn snapshots(&self, of: Option<&str>) -> Result<Vec<SnapshotInfo>> {
        LocalNode::snapshots(self, of).await
    }

    async fn get_snapshot(&self, reference: &str) -> Result<SnapshotInfo> {
        LocalNode::get_snapshot(self, reference).await
    }

    async fn remove_snapshot(&self, reference: &str) -> Result<Removed> {
        LocalNode::remove_snapshot(self, reference).await
    }

    async fn fork_snapshot(
        &self,
        reference: &str,
        request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        LocalNode::fork_snapshot(self, reference, request).await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>> {
        LocalNode::images(self).await
    }

    async fn get_image(&self, reference: &str) -> Result<ImageInfo> {
        LocalNode::get_image(self, reference).await
    }

    async fn remove_image(&self, reference: &str) -> Result<RemovedImages> {
        LocalNode::remove_image(self, reference).await
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<ImageInfo> {
        LocalNode::pull_image(self, request, progress).await
    }

    async fn import_image(
        &self,
        request: ImportImage,
        content: ByteStream,
        progress: Progress,
    ) -> Result<ImageInfo> {
        LocalNode::import_image(self, request, content, progress).await
    }

    async fn build_image(
        &self,
        request: BuildImage,
        content: ByteStream,
        progress: Progress,
    ) -> Result<ImageInfo> {
        LocalNode::build_image(self, request, content, progress).await
    }

    async fn prune_images(&self) -> Result<RemovedImages> {
        LocalNode::prune_images(self).await
    }

    async fn backup(&self, request: CreateBackup) -> Result<ByteStream> {
        LocalNode::backup(self, request).await
    }

    async fn export_image(&self, reference: &str) -> Result<ByteStream> {
        LocalNode::export_image(self, reference).await
    }
}
