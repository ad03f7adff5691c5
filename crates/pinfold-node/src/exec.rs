//! Commands: the guest's streams with what only the host knows added, namely which limits were
//! hit, how fast output may be carried, and that somebody is at work here.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pinfold_namespace::CgroupStats;
use pinfold_types::{
    Error, ErrorCode, ExecId, Result, WorkspaceId,
    api::RunRequest,
    exec::{ExecInfo, ExecResult, ExecSpec, ExitReason},
    limits::LimitKind,
    workspace::WorkspaceInfo,
};
use tokio::time::Instant;

use crate::{
    LocalNode,
    activity::InUse,
    guest::{self, ExecEvent, ExecHandle, Guest},
    live::Live,
    node::Inner,
    workspace::Workspace,
};

/// A command that succeeded sooner than this did not fill a disk.
const LOOK_AFTER: Duration = Duration::from_millis(4);
/// How often a stream goes on over a new channel before it gives up.
const MAX_RESUMED: u32 = 8;
/// How long a broken channel may be the first sign of the end of its workspace.
const END_SEEN: Duration = Duration::from_millis(250);
/// What a shell says of a child that SIGKILL ended.
const SHELL_SIGKILL: i32 = 128 + 9;

/// A command's output and its end. Dropping it detaches: the command goes on, except in a
/// throw-away workspace, which ends with it.
#[derive(Debug)]
pub struct ExecStream {
    /// Handle for attach and signal.
    pub exec_id: ExecId,
    /// Workspace.
    pub workspace: WorkspaceId,
    /// Boot.
    pub boot: u64,
    /// Process id inside.
    pub pid: i32,
    /// Offset of the first output byte that follows, over both outputs together.
    pub offset: u64,
    /// Output before it that is no longer held.
    pub lost_bytes: u64,
    stream: guest::ExecStream,
    context: Context,
    /// An event taken from the guest whose time to be handed out has not come.
    pending: Option<(ExecEvent, Option<Instant>)>,
    /// The channel ended with this, and what follows from it is not decided yet.
    broken: Option<Error>,
    resumed: u32,
    ended: bool,
    throw_away: Option<ThrowAway>,
}

#[derive(Debug)]
struct Context {
    inner: Arc<Inner>,
    workspace: Arc<Workspace>,
    live: Arc<Live>,
    before: Option<CgroupStats>,
    began: Instant,
    carried: [u64; 2],
    throttled: bool,
    _in_use: InUse,
}

/// Destroys a throw-away workspace when it goes out of sight.
#[derive(Debug)]
pub(crate) struct ThrowAway {
    inner: Arc<Inner>,
    workspace: Option<Arc<Workspace>>,
}

impl ThrowAway {
    pub(crate) fn new(inner: &Arc<Inner>, workspace: &Arc<Workspace>) -> Self {
        Self { inner: Arc::clone(inner), workspace: Some(Arc::clone(workspace)) }
    }

    /// Destroys it now; returns when its processes are dead and that is recorded. Dropping the
    /// future leaves the rest to the background.
    async fn destroy(&mut self) {
        if let Some(task) = self.begin() {
            let _ = task.await;
        }
    }

    fn begin(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let workspace = self.workspace.take()?;
        let inner = Arc::clone(&self.inner);
        Some(self.inner.tasks.spawn(async move {
            if let Err(err) = inner.destroy(&workspace).await {
                tracing::debug!(id = %workspace.id, %err, "a throw-away workspace was gone");
            }
        }))
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        // Outside a runtime nothing can be spawned, and recovery will find the row.
        if tokio::runtime::Handle::try_current().is_ok() && !self.inner.closing.is_cancelled() {
            self.begin();
        }
    }
}

impl LocalNode {
    /// Starts a command in a running workspace.
    pub async fn exec(&self, reference: &str, spec: ExecSpec) -> Result<ExecStream> {
        spec.check()?;
        let workspace = self.inner().registry.find(reference)?;
        let live = workspace.running()?;
        self.inner().exec_in(workspace, live, spec).await
    }

    /// Joins a command again, from an offset of its output where that is still held.
    pub async fn attach(
        &self,
        reference: &str,
        exec: ExecId,
        from: Option<u64>,
    ) -> Result<ExecStream> {
        let workspace = self.inner().registry.find(reference)?;
        let live = workspace.running()?;
        let in_use = workspace.activity.begin();
        let before = live.counters();
        let attach = |guest: Guest| async move { guest.attach(exec, from).await };
        let stream = workspace.ask(&live, attach).await?;
        let orphaned = workspace.orphaned.swap(false, Ordering::Relaxed);
        let throw_away = orphaned.then(|| ThrowAway::new(self.inner(), &workspace));
        let context = Context::new(self.inner(), workspace, live, before, in_use);
        Ok(ExecStream::new(stream, context, throw_away))
    }

    /// Commands that run or ended a short while ago.
    pub async fn execs(&self, reference: &str) -> Result<Vec<ExecInfo>> {
        let workspace = self.inner().registry.find(reference)?;
        let live = workspace.running()?;
        workspace.ask(&live, |guest| async move { guest.execs().await }).await
    }

    /// Signals a command's process group.
    pub async fn signal(&self, reference: &str, exec: ExecId, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("{signal} is not a signal number: 1 to 64"),
            ));
        }
        let workspace = self.inner().registry.find(reference)?;
        workspace.activity.touch();
        let live = workspace.running()?;
        workspace.channel(&live).await?.signal(exec, signal).await
    }

    /// A throw-away workspace and its one command. The workspace is destroyed when the stream
    /// ends or is dropped, and after a crash of the server unless the client attaches again.
    pub async fn run(&self, request: RunRequest) -> Result<(WorkspaceInfo, ExecStream)> {
        self.shielded(|inner| async move { inner.run(request).await }).await
    }
}

impl Inner {
    async fn exec_in(
        self: &Arc<Self>,
        workspace: Arc<Workspace>,
        live: Arc<Live>,
        spec: ExecSpec,
    ) -> Result<ExecStream> {
        let in_use = workspace.activity.begin();
        // The request is on its way while the counters are read: the command cannot have hit a
        // limit in the microseconds between.
        let start = workspace.start_exec(&live, ExecId::generate(), spec);
        let (stream, before) = tokio::join!(start, async { live.counters() });
        let stream = stream?;
        self.counts.exec_started();
        let context = Context::new(self, workspace, live, before, in_use);
        Ok(ExecStream::new(stream, context, None))
    }

    async fn run(self: &Arc<Self>, request: RunRequest) -> Result<(WorkspaceInfo, ExecStream)> {
        let mut create = request.workspace;
        create.check()?;
        let image_name =
            create.image.clone().unwrap_or_else(|| self.config.workspaces.default_image.clone());
        let spec = if let Some(spec) = request.exec {
            spec
        } else {
            let image = self.image_for(image_name.as_str()).await?;
            if image.defaults.command.is_empty() {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("image {:?} brings no command of its own", image_name.as_str()),
                )
                .hint("say what to run: pinfold run -- COMMAND"));
            }
            ExecSpec::argv(image.defaults.command)
        };
        spec.check()?;
        create.stopped = false;
        let plan = self.plan_create(create, true).await?;
        let exec = |live: Option<Arc<Live>>| async move {
            let live = live.ok_or_else(|| Error::internal("a run without a boot"))?;
            let before = live.counters();
            let stream = live.guest()?.exec(ExecId::generate(), spec).await?;
            Ok((live, before, stream))
        };
        let (workspace, (live, before, stream)) = self.make(plan, exec).await?;
        self.counts.exec_started();
        let throw_away = ThrowAway::new(self, &workspace);
        let info = workspace.info();
        let in_use = workspace.activity.begin();
        let context = Context::new(self, workspace, live, before, in_use);
        Ok((info, ExecStream::new(stream, context, Some(throw_away))))
    }
}

impl ExecStream {
    fn new(stream: guest::ExecStream, context: Context, throw_away: Option<ThrowAway>) -> Self {
        Self {
            exec_id: stream.exec_id,
            workspace: context.workspace.id,
            boot: context.live.boot,
            pid: stream.pid,
            offset: stream.offset,
            lost_bytes: stream.lost_bytes,
            stream,
            context,
            pending: None,
            broken: None,
            resumed: 0,
            ended: false,
            throw_away,
        }
    }

    /// What goes in: standard input, terminal size, signals.
    pub fn input(&self) -> ExecHandle {
        self.stream.input()
    }

    /// The next event; `None` after the last. Dropping the future loses nothing.
    ///
    /// A throw-away workspace is gone before its `Exited` is handed out.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        if self.pending.is_none() {
            if self.ended {
                return None;
            }
            self.pending = Some(self.take().await);
        }
        if let Some((_, Some(until))) = &self.pending {
            tokio::time::sleep_until(*until).await;
        }
        let last = matches!(&self.pending, Some((ExecEvent::Exited(_) | ExecEvent::Failed(_), _)));
        if last && let Some(throw_away) = &mut self.throw_away {
            throw_away.destroy().await;
        }
        self.ended = last;
        self.pending.take().map(|(event, _)| event)
    }

    /// The guest's next event, across a channel that broke and was dialled again.
    async fn take(&mut self) -> (ExecEvent, Option<Instant>) {
        loop {
            if self.broken.is_none() {
                match self.stream.next().await {
                    Some(ExecEvent::Failed(error)) => self.broken = Some(error),
                    Some(event) => return self.context.judge(event),
                    None => {
                        let error = Error::internal("a stream ended without its end");
                        return (ExecEvent::Failed(error), None);
                    }
                }
            }
            let end = self.context.end_of_boot(self.exec_id).await;
            let resumed = end.is_none() && self.resume().await;
            let Some(error) = self.broken.take() else { continue };
            if !resumed {
                return (end.unwrap_or(ExecEvent::Failed(error)), None);
            }
        }
    }

    async fn resume(&mut self) -> bool {
        let lost = |error: &Error| error.code == ErrorCode::Unavailable;
        if self.resumed >= MAX_RESUMED || !self.broken.as_ref().is_some_and(lost) {
            return false;
        }
        self.resumed += 1;
        let Ok(guest) = self.context.workspace.channel(&self.context.live).await else {
            return false;
        };
        let resumed = self.stream.resume(&guest).await;
        tracing::debug!(exec = %self.exec_id, ?resumed, "the channel of a stream was lost");
        resumed.is_ok()
    }

    /// Reads to the end and gathers at most `limit` bytes of each output, for tests and builds.
    pub async fn collect(mut self, limit: usize) -> Result<(ExecResult, Vec<u8>, Vec<u8>)> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(event) = self.next().await {
            let (kept, bytes) = match event {
                ExecEvent::Stdout(bytes) => (&mut out, bytes),
                ExecEvent::Stderr(bytes) => (&mut err, bytes),
                ExecEvent::Exited(result) => return Ok((result, out, err)),
                ExecEvent::Failed(failed) => return Err(failed),
            };
            kept.extend_from_slice(&bytes[..bytes.len().min(limit.saturating_sub(kept.len()))]);
        }
        Err(Error::internal("a stream ended without its end"))
    }
}

impl Context {
    fn new(
        inner: &Arc<Inner>,
        workspace: Arc<Workspace>,
        live: Arc<Live>,
        before: Option<CgroupStats>,
        in_use: InUse,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            workspace,
            live,
            before,
            began: Instant::now(),
            carried: [0, 0],
            throttled: false,
            _in_use: in_use,
        }
    }

    /// Adds what only the host knows to an event, and when it may be handed out.
    fn judge(&mut self, event: ExecEvent) -> (ExecEvent, Option<Instant>) {
        match event {
            ExecEvent::Stdout(bytes) => {
                let until = self.account(0, bytes.len());
                (ExecEvent::Stdout(bytes), until)
            }
            ExecEvent::Stderr(bytes) => {
                let until = self.account(1, bytes.len());
                (ExecEvent::Stderr(bytes), until)
            }
            ExecEvent::Exited(result) => (ExecEvent::Exited(self.enrich(result)), None),
            failed @ ExecEvent::Failed(_) => (failed, None),
        }
    }

    fn account(&mut self, stream: usize, bytes: usize) -> Option<Instant> {
        self.carried[stream] += u64::try_from(bytes).expect("a usize fits");
        let until = self.workspace.rate.account(bytes);
        self.throttled |= until.is_some();
        until
    }

    /// Names the limits that were hit between the command's start and its end. The counters are
    /// the whole workspace's, so a limit hit by another command at the same time is named too:
    /// it was hit while this one ran.
    fn enrich(&self, mut result: ExecResult) -> ExecResult {
        let mut hit = |kind| {
            if !result.limits_hit.contains(&kind) {
                result.limits_hit.push(kind);
            }
        };
        let failed = result.exit_code != Some(0);
        if let (Some(before), Some(after)) = (self.before, self.live.counters()) {
            let killed = rose(before.oom_kills, after.oom_kills);
            if killed {
                hit(LimitKind::Memory);
            }
            if rose(before.pids_hits, after.pids_hits) {
                hit(LimitKind::Pids);
            }
            let by_sigkill = (result.reason == ExitReason::Signaled && result.signal == Some(9))
                || (result.reason == ExitReason::Exited && result.exit_code == Some(SHELL_SIGKILL));
            if killed && by_sigkill {
                result.reason = ExitReason::OutOfMemory;
            }
        }
        // A look costs a few system calls: not for a command that was too short to fill a disk
        // which had room at the last look.
        let was_full = self.workspace.disk_full.load(Ordering::Relaxed);
        if failed || was_full || self.began.elapsed() >= LOOK_AFTER {
            let full = self.full_disk();
            self.workspace.disk_full.store(!full.is_empty(), Ordering::Relaxed);
            // What a success found full and left full it need not have touched.
            let ours = failed || !was_full;
            result.limits_hit.extend(full.into_iter().filter(|_| ours));
        }
        if self.throttled {
            result.limits_hit.push(LimitKind::Output);
        }
        result
    }

    /// Which limits of the disk stand full now.
    fn full_disk(&self) -> Vec<LimitKind> {
        let (pool, id) = (&self.inner.pool, self.workspace.id.to_string());
        let mut full = Vec::new();
        if pool.is_full(&id) {
            full.push(LimitKind::Disk);
        }
        if let Some(limit) = self.workspace.with_row(|row| row.spec.limits.disk_inodes)
            && let Ok(usage) = pool.usage(&id)
            && usage.inodes.is_some_and(|used| used + 1 >= limit)
        {
            full.push(LimitKind::Inodes);
        }
        full
    }

    /// A channel that broke because its workspace ended is that command's end.
    async fn end_of_boot(&self, exec_id: ExecId) -> Option<ExecEvent> {
        tokio::time::timeout(END_SEEN, self.live.exited()).await.ok()?;
        let oom = match (self.before, self.live.counters()) {
            (Some(before), Some(after)) => rose(before.oom_kills, after.oom_kills),
            _ => false,
        };
        let [stdout_bytes, stderr_bytes] = self.carried;
        Some(ExecEvent::Exited(ExecResult {
            exec_id,
            reason: ExitReason::WorkspaceStopped,
            exit_code: None,
            signal: None,
            limits_hit: if oom { vec![LimitKind::Memory] } else { Vec::new() },
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            stdout_bytes,
            stderr_bytes,
            error: None,
        }))
    }
}

/// Whether a counter went up. One that nobody keeps never does.
fn rose(before: Option<u64>, after: Option<u64>) -> bool {
    before.zip(after).is_some_and(|(before, after)| after > before)
}
