//! Starts guests and cleans up after them.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io::Write,
    os::{fd::AsFd, unix::net::UnixListener},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use pinfold_proto::{GuestConfig, PROTOCOL, handshake::SecretField};
use pinfold_sys::{
    signal::{self, Target},
    spawn::{Group, Spawn, spawn},
};
use pinfold_types::{
    BootSecret, ExecId, WorkspaceId,
    exec::{Command, ExecResult, ExecSpec},
};

use crate::node::guest::{ExecEvent, ExecStream, Guest};

pub(crate) const BOOT: u64 = 7;
pub(crate) const SECRET: [u8; 32] = [0x5a; 32];

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A guest as PID 1 of a namespace; dropping it kills everything in it.
pub(crate) struct Box {
    pub(crate) workspace: WorkspaceId,
    pub(crate) socket: PathBuf,
    /// A directory that both sides see.
    pub(crate) dir: PathBuf,
    pid: i32,
}

impl Box {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut GuestConfig)) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("pinfold-guest-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("guest.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let workspace = WorkspaceId::generate();
        let mut config = GuestConfig {
            protocol: PROTOCOL,
            workspace,
            boot: BOOT,
            secret: SecretField(BootSecret::from_bytes(SECRET)),
            env: BTreeMap::from([("FROM_CONFIG".into(), "yes".into())]),
            cwd: None,
            user: None,
            hostname: "box".into(),
            api_token: None,
            command: None,
        };
        change(&mut config);
        let (theirs, mut ours) = std::io::pipe().unwrap();
        ours.write_all(&serde_json::to_vec(&config).unwrap()).unwrap();
        drop(ours);
        let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        let stderr = std::io::stderr();
        let guest = std::env::var("PINFOLD_TEST_GUEST");
        let guest = guest.as_deref().unwrap_or(env!("CARGO_BIN_EXE_pinfold-guest"));
        let words = [
            "unshare",
            "--pid",
            "--mount",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
            "sh",
            "-c",
            "exec 5<>/proc/self/oom_score_adj && exec \"$0\"",
            guest,
        ];
        let pid = spawn(&Spawn {
            programs: vec![CString::new("/usr/bin/unshare").unwrap()],
            arguments: words.iter().map(|word| CString::new(*word).unwrap()).collect(),
            fds: vec![
                (null.as_fd(), 0),
                (null.as_fd(), 1),
                (stderr.as_fd(), 2),
                (listener.as_fd(), 3),
                (theirs.as_fd(), 4),
            ],
            group: Group::NewSession,
            ..Spawn::default()
        })
        .unwrap();
        Self { workspace, socket, dir, pid }
    }

    pub(crate) async fn connect(&self) -> Guest {
        let secret = BootSecret::from_bytes(SECRET);
        Guest::connect(&self.socket, &self.workspace, BOOT, &secret).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// Host pid of the guest itself.
    pub(crate) fn guest_pid(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        std::fs::read_to_string(children).unwrap().trim().parse().unwrap()
    }

    /// Waits until PID 1, and so the namespace, has ended.
    pub(crate) fn wait(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        let _ = signal::send(Target::Process(self.pid), 9);
        let pid = rustix::process::Pid::from_raw(self.pid);
        let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn sh(line: &str) -> ExecSpec {
    let mut spec = ExecSpec::argv(["x"]);
    spec.command = Command::Shell(line.to_owned());
    spec
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: ExecResult,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl Outcome {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

pub(crate) async fn collect(mut stream: ExecStream) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match stream.next().await.expect("an end before the stream's") {
            ExecEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
            ExecEvent::Stderr(bytes) => err.extend_from_slice(&bytes),
            ExecEvent::Exited(result) => {
                assert!(stream.next().await.is_none());
                return Outcome { result, out, err };
            }
            ExecEvent::Failed(error) => panic!("{error}: {:?}", error.internal),
        }
    }
}

pub(crate) async fn run(guest: &Guest, spec: ExecSpec) -> Outcome {
    collect(guest.exec(ExecId::generate(), spec).await.unwrap()).await
}
