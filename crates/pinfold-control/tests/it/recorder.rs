//! A node that does nothing and writes down what it was asked.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pinfold_control::{ByteStream, ExecEvent, ExecInput, ExecSession, ExecStart, Node, Progress};
use pinfold_proto::{ArchiveOptions, Archived, FileList, WriteOptions};
use pinfold_types::{
    Error, ErrorCode, ExecId, ImageId, Result, SnapshotId, WorkspaceId, WorkspaceState,
    access::{Holder, Holding, SnapshotHolding},
    api::{
        CreateBackup, DoctorReport, FileInfo, FileKind, PortInfo, RecoveryAction, Removed,
        RemovedImages, RunRequest, WatchEvent, WorkspaceLogs,
    },
    exec::{ExecInfo, ExecSpec, TtySize},
    image::{BuildImage, ImageInfo, ImageSource, ImportImage, PullImage},
    limits::ResourceLimits,
    snapshot::{CreateSnapshot, SnapshotInfo},
    workspace::{
        CreateWorkspace, EgressMode, ForkOutcome, ForkWorkspace, UpdateWorkspace, WorkspaceInfo,
        WorkspaceStats,
    },
};
use tokio::{
    io::DuplexStream,
    sync::{Notify, mpsc},
};

/// One workspace, named `known`.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) known: WorkspaceInfo,
    asked: Arc<Mutex<Vec<String>>>,
    /// `stop` waits for it.
    pub(crate) gate: Arc<Notify>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { known: info("known"), asked: Arc::default(), gate: Arc::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.asked.lock().expect("unpoisoned").push(what.into());
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("unpoisoned").clone()
    }

    fn find(&self, what: &str, reference: &str) -> Result<WorkspaceInfo> {
        self.note(format!("{what} {reference}"));
        Node::get(self, reference)
    }
}

pub(crate) fn info(name: &str) -> WorkspaceInfo {
    WorkspaceInfo {
        id: WorkspaceId::generate(),
        name: name.parse().expect("a name"),
        state: WorkspaceState::Running,
        reason: None,
        boot: 1,
        image: "host".into(),
        limits: vec![],
        walls: None,
        lineage: pinfold_types::workspace::Lineage::default(),
        labels: std::collections::BTreeMap::new(),
        owner: None,
        session: None,
        egress: EgressMode::DenyAll,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        started_at: None,
        expires_at: None,
        idle_ms: None,
        pid: None,
        warnings: Vec::new(),
    }
}

fn file() -> FileInfo {
    FileInfo {
        name: "f".into(),
        kind: FileKind::File,
        size_bytes: 0,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified_ms: 0,
        target: None,
    }
}

fn image() -> ImageInfo {
    ImageInfo {
        id: ImageId::generate(),
        names: vec![],
        source: ImageSource::Host,
        layers: vec![],
        size_bytes: 0,
        architecture: "amd64".into(),
        defaults: pinfold_types::image::ImageDefaults::default(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        used_by: 0,
    }
}

fn snapshot(of: WorkspaceId) -> SnapshotInfo {
    SnapshotInfo {
        id: SnapshotId::generate(),
        name: "s".parse().expect("a name"),
        workspace: of,
        workspace_name: "w".parse().expect("a name"),
        workspace_removed: false,
        owner: None,
        boot: 1,
        parent: None,
        kind: pinfold_types::snapshot::SnapshotKind::Disk,
        image: "host".into(),
        referenced_bytes: None,
        exclusive_bytes: None,
        method: "copy".into(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn bytes() -> ByteStream {
    Box::pin(futures_util::stream::iter([Ok(Bytes::from_static(b"bytes"))]))
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended(WorkspaceId);

impl ExecSession for Ended {
    type Input = Nowhere;

    fn start(&self) -> ExecStart {
        ExecStart {
            exec_id: ExecId::generate(),
            workspace: self.0,
            boot: 1,
            pid: 2,
            offset: 0,
            lost_bytes: 0,
        }
    }

    async fn next(&mut self) -> Option<ExecEvent> {
        None
    }

    fn input(&self) -> Nowhere {
        Nowhere
    }
}

/// Input of a command that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Nowhere;

impl ExecInput for Nowhere {
    async fn write(&self, _bytes: Bytes) -> Result<()> {
        Ok(())
    }
    async fn eof(&self) -> Result<()> {
        Ok(())
    }
    async fn resize(&self, _size: TtySize) -> Result<()> {
        Ok(())
    }
    async fn signal(&self, _signal: i32) -> Result<()> {
        Ok(())
    }
}

impl Node for Recorder {
    type Exec = Ended;
    type Tcp = DuplexStream;

    async fn doctor(&self) -> Result<DoctorReport> {
        self.note("doctor");
        Ok(DoctorReport { mode: "root".into(), findings: vec![], limits: vec![] })
    }
    fn recovery(&self) -> Vec<RecoveryAction> {
        self.note("recovery");
        vec![]
    }
    async fn create(&self, request: CreateWorkspace) -> Result<WorkspaceInfo> {
        self.note("create");
        Ok(WorkspaceInfo { name: request.name.expect("a name"), ..info("made") })
    }
    fn list(&self) -> Vec<WorkspaceInfo> {
        vec![self.known.clone()]
    }
    fn get(&self, reference: &str) -> Result<WorkspaceInfo> {
        if reference == self.known.name.as_str() || reference == self.known.id.to_string() {
            return Ok(self.known.clone());
        }
        Err(Error::not_found("workspace", reference))
    }
    fn holding(&self, reference: &str) -> Result<Holding> {
        let id = Node::get(self, reference)?.id;
        Ok(Holding { id, holder: Holder::default(), limits: ResourceLimits::default() })
    }

    fn holdings(&self) -> Vec<Holding> {
        self.holding("known").into_iter().collect()
    }

    async fn hand_over(&self, reference: &str, _: Holder, _: Holder) -> Result<()> {
        self.find("hand over", reference).map(drop)
    }

    async fn snapshot_holding(&self, reference: &str) -> Result<SnapshotHolding> {
        self.note(format!("whose {reference}"));
        Ok(SnapshotHolding {
            id: reference.parse().unwrap_or_else(|_| SnapshotId::generate()),
            workspace: self.known.id,
            holder: Holder::default(),
            limits: ResourceLimits::default(),
        })
    }

    fn limits_for(&self, request: &CreateWorkspace) -> Result<ResourceLimits> {
        Ok(request.limits.clone())
    }

    async fn update(&self, reference: &str, _change: UpdateWorkspace) -> Result<WorkspaceInfo> {
        self.find("update", reference)
    }
    async fn start(&self, reference: &str) -> Result<WorkspaceInfo> {
        self.find("start", reference)
    }
    async fn stop(&self, reference: &str) -> Result<WorkspaceInfo> {
        self.note(format!("stop {reference}"));
        self.gate.notified().await;
        Node::get(self, reference)
    }
    async fn pause(&self, reference: &str) -> Result<WorkspaceInfo> {
        self.find("pause", reference)
    }
    async fn resume(&self, reference: &str) -> Result<WorkspaceInfo> {
        self.find("resume", reference)
    }
    async fn destroy(&self, reference: &str) -> Result<()> {
        self.find("destroy", reference).map(drop)
    }
    async fn restore(&self, reference: &str, snapshot: &str) -> Result<WorkspaceInfo> {
        self.find(&format!("restore {snapshot}"), reference)
    }
    async fn fork(&self, reference: &str, request: ForkWorkspace) -> Result<Vec<ForkOutcome>> {
        self.find("fork", reference)?;
        let child = |place| match place {
            0 => ForkOutcome::Error(Error::new(ErrorCode::DiskFull, "full")),
            _ => ForkOutcome::Workspace(Box::new(info("child"))),
        };
        Ok((0..request.count).map(child).collect())
    }
    async fn stats(&self, reference: &str) -> Result<WorkspaceStats> {
        self.find("stats", reference).map(|_| WorkspaceStats::default())
    }
    async fn logs(&self, reference: &str, after: i64) -> Result<WorkspaceLogs> {
        self.find(&format!("logs {after}"), reference).map(|_| WorkspaceLogs::default())
    }
    async fn run(&self, _request: RunRequest) -> Result<(WorkspaceInfo, Ended)> {
        self.note("run");
        Ok((self.known.clone(), Ended(self.known.id)))
    }
    async fn exec(&self, reference: &str, spec: ExecSpec) -> Result<Ended> {
        let found = self.find(&format!("exec background={}", spec.background), reference)?;
        Ok(Ended(found.id))
    }
    async fn attach(&self, reference: &str, _exec: ExecId, _from: Option<u64>) -> Result<Ended> {
        self.find("attach", reference).map(|found| Ended(found.id))
    }
    async fn execs(&self, reference: &str) -> Result<Vec<ExecInfo>> {
        self.find("execs", reference).map(|_| vec![])
    }
    async fn signal(&self, reference: &str, _exec: ExecId, signal: i32) -> Result<()> {
        self.find(&format!("signal {signal}"), reference).map(drop)
    }
    async fn stat_file(&self, reference: &str, path: &str) -> Result<FileInfo> {
        self.find(&format!("stat {path}"), reference).map(|_| file())
    }
    async fn list_files(
        &self,
        reference: &str,
        path: &str,
        _after: Option<&str>,
        _limit: Option<u32>,
    ) -> Result<FileList> {
        self.find(&format!("ls {path}"), reference).map(|_| FileList::default())
    }
    async fn read_file(
        &self,
        reference: &str,
        path: &str,
        _offset: u64,
        _length: Option<u64>,
    ) -> Result<ByteStream> {
        self.find(&format!("read {path}"), reference).map(|_| bytes())
    }
    async fn write_file(
        &self,
        reference: &str,
        path: &str,
        _options: WriteOptions,
        _content: ByteStream,
    ) -> Result<FileInfo> {
        self.find(&format!("write {path}"), reference).map(|_| file())
    }
    async fn make_dir(
        &self,
        reference: &str,
        path: &str,
        _mode: Option<u32>,
        _parents: bool,
    ) -> Result<()> {
        self.find(&format!("mkdir {path}"), reference).map(drop)
    }
    async fn rename_file(&self, reference: &str, from: &str, to: &str) -> Result<()> {
        self.find(&format!("mv {from} {to}"), reference).map(drop)
    }
    async fn remove_file(&self, reference: &str, path: &str, _recursive: bool) -> Result<()> {
        self.find(&format!("rm {path}"), reference).map(drop)
    }
    async fn chmod_file(&self, reference: &str, path: &str, mode: u32) -> Result<()> {
        self.find(&format!("chmod {mode:o} {path}"), reference).map(drop)
    }
    async fn watch_files(
        &self,
        reference: &str,
        path: &str,
        _recursive: bool,
    ) -> Result<mpsc::Receiver<WatchEvent>> {
        self.find(&format!("watch {path}"), reference).map(|_| mpsc::channel(1).1)
    }
    async fn get_archive(&self, reference: &str, path: &str) -> Result<ByteStream> {
        self.find(&format!("archive {path}"), reference).map(|_| bytes())
    }
    async fn put_archive(
        &self,
        reference: &str,
        path: &str,
        _options: ArchiveOptions,
        _content: ByteStream,
    ) -> Result<Archived> {
        self.find(&format!("unpack {path}"), reference).map(|_| Archived::default())
    }
    async fn tcp(&self, reference: &str, port: u16) -> Result<DuplexStream> {
        self.find(&format!("tcp {port}"), reference).map(|_| tokio::io::duplex(8).0)
    }
    async fn ports(&self, reference: &str) -> Result<Vec<PortInfo>> {
        self.find("ports", reference).map(|_| vec![])
    }
    async fn snapshot(&self, reference: &str, _request: CreateSnapshot) -> Result<SnapshotInfo> {
        self.find("snapshot", reference).map(|found| snapshot(found.id))
    }
    async fn snapshots(&self, of: Option<&str>) -> Result<Vec<SnapshotInfo>> {
        self.note(format!("snapshots {of:?}"));
        Ok(vec![snapshot(self.known.id)])
    }
    async fn get_snapshot(&self, reference: &str) -> Result<SnapshotInfo> {
        self.note(format!("snapshot? {reference}"));
        Ok(snapshot(self.known.id))
    }
    async fn remove_snapshot(&self, reference: &str) -> Result<Removed> {
        self.note(format!("snapshot rm {reference}"));
        Ok(Removed::default())
    }
    async fn fork_snapshot(
        &self,
        reference: &str,
        _request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        self.note(format!("snapshot fork {reference}"));
        Ok(vec![])
    }
    async fn images(&self) -> Result<Vec<ImageInfo>> {
        self.note("images");
        Ok(vec![image()])
    }
    async fn get_image(&self, reference: &str) -> Result<ImageInfo> {
        self.note(format!("image? {reference}"));
        Ok(image())
    }
    async fn remove_image(&self, reference: &str) -> Result<RemovedImages> {
        self.note(format!("image rm {reference}"));
        Ok(RemovedImages::default())
    }
    async fn pull_image(&self, request: PullImage, _progress: Progress) -> Result<ImageInfo> {
        self.note(format!("pull {}", request.image));
        Ok(image())
    }
    async fn import_image(
        &self,
        request: ImportImage,
        _content: ByteStream,
        _progress: Progress,
    ) -> Result<ImageInfo> {
        self.note(format!("import {}", request.name));
        Ok(image())
    }
    async fn build_image(
        &self,
        request: BuildImage,
        _content: ByteStream,
        _progress: Progress,
    ) -> Result<ImageInfo> {
        self.note(format!("build {}", request.name));
        Ok(image())
    }
    async fn prune_images(&self) -> Result<RemovedImages> {
        self.note("prune");
        Ok(RemovedImages::default())
    }
    async fn backup(&self, _: CreateBackup) -> Result<ByteStream> {
        self.note("backup");
        Ok(bytes())
    }

    async fn export_image(&self, reference: &str) -> Result<ByteStream> {
        self.note(format!("export {reference}"));
        Ok(bytes())
    }
}
