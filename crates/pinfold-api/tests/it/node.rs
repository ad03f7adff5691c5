//! A node without workspaces: `fix` exists, everything succeeds in the least way, and commands
//! are played by their first word.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use pinfold_control::{ByteStream, ExecEvent, ExecInput, ExecSession, ExecStart, Node, Progress};
use pinfold_proto::{ArchiveOptions, Archived, FileList, WriteOptions};
use pinfold_types::{
    Error, ErrorCode, ExecId, Result, WorkspaceId,
    access::{Holder, Holding, SnapshotHolding},
    api::{
        CreateBackup, DoctorReport, FileInfo, FileKind, PortInfo, RecoveryAction, Removed,
        RemovedImages, RunRequest, WatchEvent, WatchKind, WorkspaceLogs,
    },
    exec::{Command, ExecInfo, ExecResult, ExecSpec, ExitReason, TtySize},
    image::{BuildImage, ImageInfo, ImageProgress, ImportImage, PullImage},
    limits::ResourceLimits,
    snapshot::{CreateSnapshot, SnapshotInfo},
    workspace::{
        CreateWorkspace, ForkOutcome, ForkWorkspace, UpdateWorkspace, WorkspaceInfo, WorkspaceStats,
    },
};
use tokio::{io::DuplexStream, sync::mpsc};

/// Output of the command `flood`.
pub(crate) const FLOOD: usize = 8 << 20;

pub(crate) struct FakeNode;

/// Id of `faulty`.
const FAULTY: &str = "ws_01k8y6f5t0e8jb4yy1w3gq7m2t";
/// Id of `fix`.
const FIX: &str = "ws_01k8y6f5t0e8jb4yy1w3gq7m2s";

pub(crate) fn workspace() -> WorkspaceInfo {
    serde_json::from_value(serde_json::json!({
        "id": FIX, "name": "fix", "state": "running", "boot": 1,
        "image": "host", "limits": [], "lineage": {"depth": 0}, "labels": {},
        "egress": "deny_all", "created_at": "2026-01-01T00:00:00Z",
    }))
    .expect("a workspace")
}

fn known(reference: &str) -> Result<WorkspaceInfo> {
    if reference == "fix" || reference == FIX {
        Ok(workspace())
    } else {
        Err(Error::not_found("workspace", reference))
    }
}

fn snapshot() -> SnapshotInfo {
    serde_json::from_value(serde_json::json!({
        "id": pinfold_types::SnapshotId::generate(), "name": "s", "workspace": WorkspaceId::generate(),
        "workspace_name": "w", "boot": 1, "kind": "disk", "image": "host", "method": "copy",
        "created_at": "2026-01-01T00:00:00Z",
    }))
    .expect("a snapshot")
}

fn image() -> ImageInfo {
    serde_json::from_value(serde_json::json!({
        "id": pinfold_types::ImageId::generate(), "names": ["host"], "source": {"kind": "host"},
        "layers": [], "size_bytes": 0, "architecture": "amd64", "defaults": {},
        "created_at": "2026-01-01T00:00:00Z",
    }))
    .expect("an image")
}

fn file() -> FileInfo {
    FileInfo {
        name: "f".into(),
        kind: FileKind::File,
        size_bytes: 3,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified_ms: 0,
        target: None,
    }
}

async fn drain(mut content: ByteStream) -> Result<u64> {
    let mut total = 0;
    while let Some(chunk) = content.next().await {
        total += chunk?.len() as u64;
    }
    Ok(total)
}

/// A command that is played.
pub(crate) struct FakeExec {
    start: ExecStart,
    events: mpsc::Receiver<ExecEvent>,
    input: FakeInput,
}

#[derive(Clone)]
pub(crate) struct FakeInput(mpsc::Sender<Typed>);

enum Typed {
    Data(Bytes),
    Eof,
    Resize(TtySize),
    Signal(i32),
}

fn ended(exec_id: ExecId, code: i32) -> ExecEvent {
    ExecEvent::Exited(ExecResult {
        exec_id,
        reason: ExitReason::Exited,
        exit_code: Some(code),
        signal: None,
        limits_hit: vec![],
        duration_ms: 1,
        stdout_bytes: 0,
        stderr_bytes: 0,
        error: None,
    })
}

fn play(spec: &ExecSpec) -> FakeExec {
    let exec_id = ExecId::generate();
    let start = ExecStart {
        exec_id,
        workspace: WorkspaceId::generate(),
        boot: 1,
        pid: 2,
        offset: 0,
        lost_bytes: 0,
    };
    let (say, events) = mpsc::channel(1);
    let (input, mut typed) = mpsc::channel(1);
    let word = match &spec.command {
        Command::Argv(words) => words[0].clone(),
        Command::Shell(line) => line.clone(),
    };
    tokio::spawn(async move {
        match word.as_str() {
            // Everything comes back; sizes and signals as text on the other output.
            "echo" => {
                while let Some(next) = typed.recv().await {
                    let event = match next {
                        Typed::Data(data) => ExecEvent::Stdout(data),
                        Typed::Resize(size) => {
                            ExecEvent::Stderr(format!("{}x{}", size.cols, size.rows).into())
                        }
                        Typed::Signal(signal) => {
                            ExecEvent::Stderr(format!("signal {signal}").into())
                        }
                        Typed::Eof => break,
                    };
                    let _gone = say.send(event).await;
                }
                let _gone = say.send(ended(exec_id, 3)).await;
            }
            "flood" => {
                for _ in 0..8 {
                    let _gone = say.send(ExecEvent::Stdout(vec![7; FLOOD / 8].into())).await;
                }
                let _gone = say.send(ended(exec_id, 0)).await;
            }
            // Says nothing, and obeys a signal whether or not anybody reads.
            "sleep" => {
                while let Some(next) = typed.recv().await {
                    if matches!(next, Typed::Signal(_)) {
                        break;
                    }
                }
                let _gone = say.send(ended(exec_id, 0)).await;
            }
            // Fills whatever is between, and ends on a signal.
            "stuck" => loop {
                tokio::select! {
                    next = typed.recv() => if matches!(next, Some(Typed::Signal(_)) | None) { break },
                    sent = say.send(ExecEvent::Stdout(vec![1; 1 << 16].into())) => {
                        if sent.is_err() { break }
                    }
                }
            },
            _ => {
                let _gone = say.send(ended(exec_id, 0)).await;
            }
        }
    });
    FakeExec { start, events, input: FakeInput(input) }
}

impl ExecSession for FakeExec {
    type Input = FakeInput;
    fn start(&self) -> ExecStart {
        self.start
    }
    async fn next(&mut self) -> Option<ExecEvent> {
        self.events.recv().await
    }
    fn input(&self) -> FakeInput {
        self.input.clone()
    }
}

impl FakeInput {
    async fn put(&self, typed: Typed) -> Result<()> {
        let gone = |_| Error::new(ErrorCode::Conflict, "the command has ended");
        self.0.send(typed).await.map_err(gone)
    }
}

impl ExecInput for FakeInput {
    async fn write(&self, bytes: Bytes) -> Result<()> {
        self.put(Typed::Data(bytes)).await
    }
    async fn eof(&self) -> Result<()> {
        self.put(Typed::Eof).await
    }
    async fn resize(&self, size: TtySize) -> Result<()> {
        self.put(Typed::Resize(size)).await
    }
    async fn signal(&self, signal: i32) -> Result<()> {
        self.put(Typed::Signal(signal)).await
    }
}

impl Node for FakeNode {
    type Exec = FakeExec;
    type Tcp = DuplexStream;

    async fn doctor(&self) -> Result<DoctorReport> {
        Ok(DoctorReport { mode: "root".into(), findings: vec![], limits: vec![] })
    }
    fn recovery(&self) -> Vec<RecoveryAction> {
        vec![]
    }
    async fn create(&self, _: CreateWorkspace) -> Result<WorkspaceInfo> {
        Ok(WorkspaceInfo { id: WorkspaceId::generate(), ..workspace() })
    }
    fn list(&self) -> Vec<WorkspaceInfo> {
        vec![workspace()]
    }
    fn get(&self, reference: &str) -> Result<WorkspaceInfo> {
        known(reference)
    }
    fn holding(&self, reference: &str) -> Result<Holding> {
        let limits = ResourceLimits::default();
        let id = match reference {
            "faulty" | FAULTY => FAULTY.parse()?,
            _ => known(reference)?.id,
        };
        Ok(Holding { id, holder: Holder::default(), limits })
    }

    fn holdings(&self) -> Vec<Holding> {
        self.holding("fix").into_iter().collect()
    }

    async fn hand_over(&self, reference: &str, _: Holder, _: Holder) -> Result<()> {
        known(reference).map(drop)
    }

    async fn snapshot_holding(&self, _: &str) -> Result<SnapshotHolding> {
        let snapshot = snapshot();
        Ok(SnapshotHolding {
            id: snapshot.id,
            workspace: snapshot.workspace,
            holder: Holder::default(),
            limits: ResourceLimits::default(),
        })
    }

    fn limits_for(&self, request: &CreateWorkspace) -> Result<ResourceLimits> {
        Ok(request.limits.clone())
    }

    async fn update(&self, reference: &str, _: UpdateWorkspace) -> Result<WorkspaceInfo> {
        known(reference)
    }
    async fn start(&self, reference: &str) -> Result<WorkspaceInfo> {
        known(reference)
    }
    async fn stop(&self, reference: &str) -> Result<WorkspaceInfo> {
        known(reference)
    }
    async fn pause(&self, reference: &str) -> Result<WorkspaceInfo> {
        // A fault of ours, with words that must not leave the process.
        if reference == FAULTY {
            return Err(Error::internal("the secret is hunter2"));
        }
        known(reference)
    }
    async fn resume(&self, reference: &str) -> Result<WorkspaceInfo> {
        known(reference)
    }
    async fn destroy(&self, reference: &str) -> Result<()> {
        known(reference).map(drop)
    }
    async fn restore(&self, reference: &str, _: &str) -> Result<WorkspaceInfo> {
        known(reference)
    }
    async fn fork(&self, reference: &str, _: ForkWorkspace) -> Result<Vec<ForkOutcome>> {
        known(reference).map(|info| vec![ForkOutcome::Workspace(Box::new(info))])
    }
    async fn stats(&self, reference: &str) -> Result<WorkspaceStats> {
        known(reference).map(|_| WorkspaceStats::default())
    }
    async fn logs(&self, reference: &str, _: i64) -> Result<WorkspaceLogs> {
        known(reference).map(|_| WorkspaceLogs::default())
    }
    async fn run(&self, request: RunRequest) -> Result<(WorkspaceInfo, FakeExec)> {
        let spec = request.exec.unwrap_or_else(|| ExecSpec::argv(["true"]));
        Ok((workspace(), play(&spec)))
    }
    async fn exec(&self, reference: &str, spec: ExecSpec) -> Result<FakeExec> {
        known(reference).map(|_| play(&spec))
    }
    async fn attach(&self, reference: &str, _: ExecId, _: Option<u64>) -> Result<FakeExec> {
        known(reference).map(|_| play(&ExecSpec::argv(["sleep"])))
    }
    async fn execs(&self, reference: &str) -> Result<Vec<ExecInfo>> {
        known(reference).map(|_| vec![])
    }
    async fn signal(&self, reference: &str, _: ExecId, _: i32) -> Result<()> {
        known(reference).map(drop)
    }
    async fn stat_file(&self, reference: &str, _: &str) -> Result<FileInfo> {
        known(reference).map(|_| file())
    }
    async fn list_files(
        &self,
        reference: &str,
        _: &str,
        _: Option<&str>,
        _: Option<u32>,
    ) -> Result<FileList> {
        known(reference).map(|_| FileList { entries: vec![file()], next: None })
    }
    async fn read_file(
        &self,
        reference: &str,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<ByteStream> {
        known(reference)?;
        let broken = path == "/broken";
        let tail = broken.then(|| Err(Error::new(ErrorCode::Conflict, "it broke")));
        let whole = Bytes::from_static(b"abc");
        let from = usize::try_from(offset).map_or(3, |offset| offset.min(3));
        let many = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(3);
        let parts =
            [Ok(whole.slice(from..from.saturating_add(many).min(3)))].into_iter().chain(tail);
        Ok(Box::pin(stream::iter(parts)))
    }
    async fn write_file(
        &self,
        reference: &str,
        _: &str,
        _: WriteOptions,
        content: ByteStream,
    ) -> Result<FileInfo> {
        known(reference)?;
        Ok(FileInfo { size_bytes: drain(content).await?, ..file() })
    }
    async fn make_dir(&self, reference: &str, _: &str, _: Option<u32>, _: bool) -> Result<()> {
        known(reference).map(drop)
    }
    async fn rename_file(&self, reference: &str, _: &str, _: &str) -> Result<()> {
        known(reference).map(drop)
    }
    async fn remove_file(&self, reference: &str, _: &str, _: bool) -> Result<()> {
        known(reference).map(drop)
    }
    async fn chmod_file(&self, reference: &str, _: &str, _: u32) -> Result<()> {
        known(reference).map(drop)
    }
    async fn watch_files(
        &self,
        reference: &str,
        _: &str,
        _: bool,
    ) -> Result<mpsc::Receiver<WatchEvent>> {
        known(reference)?;
        let (sender, receiver) = mpsc::channel(1);
        let event = WatchEvent { kind: WatchKind::Created, path: "a".into() };
        sender.try_send(event).expect("room for one");
        Ok(receiver)
    }
    async fn get_archive(&self, reference: &str, _: &str) -> Result<ByteStream> {
        known(reference)?;
        Ok(Box::pin(stream::iter([Ok(Bytes::from(vec![0; 1024]))])))
    }
    async fn put_archive(
        &self,
        reference: &str,
        _: &str,
        _: ArchiveOptions,
        content: ByteStream,
    ) -> Result<Archived> {
        known(reference)?;
        Ok(Archived { entries: 0, bytes: drain(content).await?, skipped: 0 })
    }
    async fn tcp(&self, reference: &str, port: u16) -> Result<DuplexStream> {
        known(reference)?;
        if port == 9 {
            return Err(Error::new(ErrorCode::Conflict, "nothing listens on port 9 inside"));
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            let _ended = tokio::io::copy(&mut read, &mut write).await;
            let _ended = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        });
        Ok(ours)
    }
    async fn ports(&self, reference: &str) -> Result<Vec<PortInfo>> {
        known(reference).map(|_| vec![PortInfo { port: 80, address: "127.0.0.1".into() }])
    }
    async fn snapshot(&self, reference: &str, _: CreateSnapshot) -> Result<SnapshotInfo> {
        known(reference).map(|_| snapshot())
    }
    async fn snapshots(&self, _: Option<&str>) -> Result<Vec<SnapshotInfo>> {
        Ok(vec![snapshot()])
    }
    async fn get_snapshot(&self, _: &str) -> Result<SnapshotInfo> {
        Ok(snapshot())
    }
    async fn remove_snapshot(&self, _: &str) -> Result<Removed> {
        Ok(Removed::default())
    }
    async fn fork_snapshot(&self, _: &str, _: ForkWorkspace) -> Result<Vec<ForkOutcome>> {
        Ok(vec![ForkOutcome::Error(Error::new(ErrorCode::DiskFull, "full"))])
    }
    async fn images(&self) -> Result<Vec<ImageInfo>> {
        Ok(vec![image()])
    }
    async fn get_image(&self, _: &str) -> Result<ImageInfo> {
        Ok(image())
    }
    async fn remove_image(&self, _: &str) -> Result<RemovedImages> {
        Ok(RemovedImages::default())
    }
    async fn pull_image(&self, _: PullImage, progress: Progress) -> Result<ImageInfo> {
        for number in 0..200 {
            let step = ImageProgress::Step { message: format!("step {number}") };
            let _nobody = progress.send(step).await;
        }
        Ok(image())
    }
    async fn import_image(
        &self,
        _: ImportImage,
        content: ByteStream,
        progress: Progress,
    ) -> Result<ImageInfo> {
        let message = format!("{} bytes", drain(content).await?);
        let _nobody = progress.send(ImageProgress::Step { message }).await;
        Ok(image())
    }
    async fn build_image(&self, _: BuildImage, _: ByteStream, _: Progress) -> Result<ImageInfo> {
        Err(Error::new(ErrorCode::BadImage, "line 1: no such step"))
    }
    async fn prune_images(&self) -> Result<RemovedImages> {
        Ok(RemovedImages::default())
    }
    async fn backup(&self, _: CreateBackup) -> Result<ByteStream> {
        Ok(Box::pin(stream::iter([Ok(Bytes::from_static(b"sealed"))])))
    }

    async fn export_image(&self, _: &str) -> Result<ByteStream> {
        Ok(Box::pin(stream::iter([Ok(Bytes::from_static(b"tar"))])))
    }
}
