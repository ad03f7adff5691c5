//! The server's side of `pinfold-launcher`: start it, ask it, start it again when it died.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use pinfold_types::{Error, ErrorCode, Result, workspace::Walls};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
    pipe::PipeFlags,
    process::{Signal, pidfd_send_signal},
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
    sync::Mutex,
    time::timeout,
};

use crate::{
    LastWords,
    failure::Failure,
    identity,
    spec::{LaunchExtras, LaunchSpec, Launched},
    wire::{self, Reply, Request},
};

/// Longest a launch may take; a usual one takes a millisecond.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of the guest's configuration.
const MAX_CONFIG: usize = 4 << 20;

/// How to start the helper.
#[derive(Clone, Debug)]
pub struct LauncherOptions {
    /// The `pinfold-launcher` program.
    pub binary: PathBuf,
    /// Short text that tells this home from others, shown in the helper's process list entry.
    pub home_tag: String,
}

/// The helper process, as the server holds it. Launches may run at the same time.
#[derive(Debug)]
pub struct Launcher {
    options: LauncherOptions,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    socket: Arc<UnixStream>,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It holds nothing that needs an orderly end; its workspaces live on without it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why one attempt brought no workspace.
enum Attempt {
    /// The helper was gone before it did anything: worth another.
    HelperGone,
    /// Final.
    Refused(Error),
}

impl Launcher {
    /// Starts the helper. Must be called on a tokio runtime, whose driver watches its socket.
    #[expect(clippy::unused_async, reason = "being async keeps callers on a runtime")]
    pub async fn start(options: LauncherOptions) -> Result<Self> {
        let process = spawn(&options)?;
        Ok(Self { options, process: Mutex::new(Some(process)) })
    }

    /// Pid of the helper while it runs.
    pub fn pid(&self) -> Option<i32> {
        let process = self.process.try_lock().ok()?;
        i32::try_from(process.as_ref()?.child.id()).ok()
    }

    /// Starts a workspace's guest behind its walls. When this returns an error, nothing runs.
    pub async fn launch(&self, spec: LaunchSpec) -> Result<Launched> {
        self.launch_with(spec, LaunchExtras::default()).await
    }

    /// As [`Self::launch`], for measurements and tests.
    pub async fn launch_with(&self, spec: LaunchSpec, extras: LaunchExtras) -> Result<Launched> {
        if spec.guest_config.len() > MAX_CONFIG {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the guest's configuration is over {MAX_CONFIG} bytes"),
            ));
        }
        let request = Request { mode: crate::mode(), spec, extras };
        let text = serde_json::to_vec(&request).map_err(Error::internal)?;
        if text.len() > wire::MAX_MESSAGE {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the launch request is over {} bytes: too many layers", wire::MAX_MESSAGE),
            ));
        }
        for _ in 0..2 {
            let socket = self.socket().await?;
            match timeout(LAUNCH_TIMEOUT, attempt(&socket, &text, &request)).await {
                Ok(Ok(launched)) => return Ok(launched),
                Ok(Err(Attempt::Refused(error))) => return Err(error),
                Ok(Err(Attempt::HelperGone)) => self.forget(&socket).await,
                Err(_) => {
                    return Err(Error::new(
                        ErrorCode::Timeout,
                        format!("the workspace did not start in {} s", LAUNCH_TIMEOUT.as_secs()),
                    )
                    .hint("the machine is very busy, or a filesystem hangs; try again"));
                }
            }
        }
        Err(Error::new(ErrorCode::Unavailable, "pinfold-launcher died twice during the launch")
            .hint("look at the server's log and the kernel log for the reason"))
    }

    /// Ends the helper. Workspaces live on.
    pub async fn shutdown(self) {
        drop(self.process.lock().await.take());
    }

    async fn socket(&self) -> Result<Arc<UnixStream>> {
        let mut process = self.process.lock().await;
        if let Some(process) = process.as_ref() {
            return Ok(process.socket.clone());
        }
        let fresh = spawn(&self.options)?;
        let socket = fresh.socket.clone();
        *process = Some(fresh);
        Ok(socket)
    }

    /// Drops the helper behind `socket`, unless another launch did so already.
    async fn forget(&self, socket: &Arc<UnixStream>) {
        let mut process = self.process.lock().await;
        if process.as_ref().is_some_and(|known| Arc::ptr_eq(&known.socket, socket)) {
            tracing::warn!("pinfold-launcher has ended; starting another");
            *process = None;
        }
    }
}

fn spawn(options: &LauncherOptions) -> Result<Process> {
    let (ours, theirs) = packets().map_err(Error::internal)?;
    let child = Command::new(&options.binary)
        .arg(&options.home_tag)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| {
            Error::new(
                ErrorCode::Unavailable,
                format!("cannot start {}: {error}", options.binary.display()),
            )
            .hint("pinfold-launcher belongs beside the pinfold program")
        })?;
    let socket = asynchronous(ours).map_err(Error::internal)?;
    Ok(Process { socket: Arc::new(socket), child })
}

fn packets() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Tokio's type for unix sockets waits on sequenced packets as well; only its byte-stream
/// methods would not fit, and are not used.
fn asynchronous(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn attempt(helper: &UnixStream, text: &[u8], request: &Request) -> Result<Launched, Attempt> {
    let refused = |error: std::io::Error| Attempt::Refused(Error::internal(error));
    let config = config_pipe(&request.spec.guest_config).map_err(refused)?;
    let (ours, theirs) = packets().map_err(refused)?;
    let (last_words, says) = LastWords::pipe().map_err(refused)?;
    let sent = helper
        .async_io(Interest::WRITABLE, || {
            Ok(wire::send(helper, text, &[theirs.as_fd(), config.as_fd(), says.as_fd()])?)
        })
        .await;
    match sent {
        Ok(()) => {}
        Err(error) if gone(&error) => return Err(Attempt::HelperGone),
        Err(error) => return Err(refused(error)),
    }
    // What is left of these here would keep the streams open.
    drop((theirs, config, says));
    let replies = asynchronous(ours).map_err(refused)?;
    Started::default().follow(&replies, request, last_words).await
}

fn gone(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED))
}

/// What the child said before its exec.
struct Ready {
    landlock_abi: u32,
    namespaces: Vec<String>,
    trace: Vec<(String, u64)>,
}

/// What is known of a launch under way. Dropped before its end, it takes the process with it.
#[derive(Default)]
struct Started {
    process: Option<(i32, OwnedFd)>,
    ready: Option<Ready>,
    failed: Option<Failure>,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some((_, pidfd)) = &self.process {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

impl Started {
    async fn follow(
        mut self,
        replies: &UnixStream,
        request: &Request,
        last_words: LastWords,
    ) -> Result<Launched, Attempt> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let packet = replies
                .async_io(Interest::READABLE, || {
                    let packet = wire::receive(replies, &mut buffer)?;
                    Ok(packet.map(|(bytes, descriptors)| (bytes.len(), descriptors)))
                })
                .await
                .map_err(|error| Attempt::Refused(Error::internal(error)))?;
            let Some((length, descriptors)) = packet else { break };
            let reply = serde_json::from_slice(&buffer[..length])
                .map_err(|error| Attempt::Refused(Error::internal(error)))?;
            match reply {
                Reply::Pid(pid) => {
                    self.process = descriptors.into_iter().next().map(|pidfd| (pid, pidfd));
                }
                Reply::Ready { landlock_abi, namespaces, trace } => {
                    self.ready = Some(Ready { landlock_abi, namespaces, trace });
                }
                Reply::Failed(failure) => {
                    self.failed.get_or_insert(failure);
                }
            }
        }
        self.finish(request, last_words)
    }

    /// The stream has ended: all its writers are gone, by exec or by exit.
    fn finish(mut self, request: &Request, last_words: LastWords) -> Result<Launched, Attempt> {
        if let Some(failure) = self.failed.take() {
            return Err(Attempt::Refused(failure.into()));
        }
        let Some((pid, pidfd)) = self.process.take() else { return Err(Attempt::HelperGone) };
        let died = || Attempt::Refused(died_at_once(&last_words));
        let Some(Ready { landlock_abi, namespaces, trace }) = self.ready.take() else {
            self.process = Some((pid, pidfd));
            return Err(died());
        };
        // Read first, then seen to be alive: so the time read was this process's.
        let start_time = identity::start_time(pid);
        let Some(start_time) = start_time.filter(|_| !identity::has_exited(&pidfd)) else {
            return Err(died());
        };
        let spec = &request.spec;
        let walls = Walls {
            backend: "namespace".into(),
            mode: request.mode.as_str().into(),
            namespaces,
            landlock_abi,
            seccomp: true,
            cgroups: spec.cgroup.as_ref().map_or("none", |join| join.kind()).into(),
            uid_base: spec.ids.base,
            uid_count: spec.ids.count,
            nested: spec.nested,
            unlimited: spec.cgroup.is_none(),
        };
        Ok(Launched { pid, start_time, pidfd, walls, last_words, trace })
    }
}

fn died_at_once(last_words: &LastWords) -> Error {
    match last_words.take() {
        Some(words) => {
            let message = format!("the workspace's first process could not start: {words}");
            Error::new(ErrorCode::Internal, message)
        }
        None => Error::new(ErrorCode::CannotEnforce, "the workspace's first process was killed")
            .hint("its memory or process limit may be too low to start in"),
    }
}

/// A pipe that yields `content` and then ends. What does not fit its buffer is written as the
/// guest reads.
fn config_pipe(content: &[u8]) -> std::io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    let mut written = 0;
    while written < content.len() {
        match rustix::io::write(&writer, &content[written..]) {
            Ok(count) => written += count,
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if written < content.len() {
        let rest = content[written..].to_vec();
        let mut writer = tokio::net::unix::pipe::Sender::from_owned_fd(writer)?;
        // Ends with the guest at the latest: its end of the pipe closes then.
        tokio::spawn(async move {
            let _ = writer.write_all(&rest).await;
        });
    }
    Ok(reader)
}
