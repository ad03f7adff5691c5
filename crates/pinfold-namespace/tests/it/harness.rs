//! A root made from the host's /usr, a launcher, and a guest that runs shell lines.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use pinfold_namespace::{
    Cgroups, IdRange, LaunchExtras, LaunchSpec, Launched, Launcher, LauncherOptions,
    WorkspaceCgroup,
};
use pinfold_types::{RootMount, WorkspaceId, limits::ResourceLimits};
use rustix::process::{Signal, pidfd_send_signal};

/// Host ids no other test uses at the same time.
static NEXT_RANGE: AtomicU32 = AtomicU32::new(0);

pub(crate) fn launcher_options() -> LauncherOptions {
    LauncherOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_pinfold-launcher")),
        home_tag: "test".into(),
    }
}

fn guest() -> PathBuf {
    let bin = Path::new(env!("CARGO_BIN_EXE_pinfold-launcher"));
    bin.with_file_name("examples").join("namespace-guest")
}

/// Everything of one test workspace; gone with the value.
pub(crate) struct Workspace {
    pub launched: Launched,
    pub cgroup: Option<WorkspaceCgroup>,
    pub spec: LaunchSpec,
    pub directory: tempfile::TempDir,
}

/// A directory with an image, an empty disk and a spec that joins them.
pub(crate) struct Ground {
    pub directory: tempfile::TempDir,
    pub spec: LaunchSpec,
    pub extras: LaunchExtras,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("pinfold-ns-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let image = directory.path().join("image");
        for name in ["usr", "etc", "root", "home", "var/tmp", "tmp", "proc", "dev", "sys", "run"] {
            fs::create_dir_all(image.join(name)).unwrap();
        }
        fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), image.join(name)).unwrap();
        }
        fs::write(
            image.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000::/home:/bin/sh\n",
        )
        .unwrap();
        fs::write(image.join("etc/group"), "root:x:0:\ntty:x:5:\nagent:x:1000:\n").unwrap();
        let disk = directory.path().join("disk");
        for slot in ["0", "1"] {
            fs::create_dir_all(disk.join("upper").join(slot)).unwrap();
            fs::create_dir_all(disk.join("work").join(slot)).unwrap();
        }
        let number = NEXT_RANGE.fetch_add(1, Ordering::Relaxed);
        let base = 1_000_000_000 + (std::process::id() % 4000) * 131_072 + number * 65536;
        let mount = |target: &str, lower: PathBuf| RootMount {
            target: target.into(),
            lowers: vec![lower],
            writable: true,
            idmapped: true,
        };
        let spec = LaunchSpec {
            workspace: WorkspaceId::generate(),
            boot: 1,
            hostname: "walled".into(),
            mounts: vec![mount("/", image), mount("/usr", "/usr".into())],
            disk,
            guest: guest(),
            socket: directory.path().join("guest.sock"),
            guest_config: b"{\"hello\":1}".to_vec(),
            ids: IdRange { base, count: 65536 },
            cgroup: None,
            nested: false,
            open_files: Some(4096),
            volatile: false,
            shm_bytes: 64 << 20,
        };
        let extras = LaunchExtras::traced();
        Self { directory, spec, extras }
    }

    pub(crate) async fn start(self, launcher: &Launcher) -> Workspace {
        self.try_start(launcher).await.map_err(|(_, error)| error).expect("a launch")
    }

    pub(crate) async fn try_start(
        self,
        launcher: &Launcher,
    ) -> Result<Workspace, (Self, pinfold_types::Error)> {
        match launcher.launch_with(self.spec.clone(), self.extras.clone()).await {
            Ok(launched) => {
                Ok(Workspace { launched, cgroup: None, spec: self.spec, directory: self.directory })
            }
            Err(error) => Err((self, error)),
        }
    }

    pub(crate) async fn start_limited(
        mut self,
        launcher: &Launcher,
        cgroups: &Cgroups,
        limits: &ResourceLimits,
    ) -> Workspace {
        let cgroup = cgroups.create(&self.spec.workspace, limits).expect("a cgroup");
        self.spec.cgroup = Some(cgroup.join());
        let mut workspace = self.start(launcher).await;
        workspace.cgroup = Some(cgroup);
        workspace
    }
}

impl Workspace {
    /// Output and success of a shell line inside.
    pub(crate) fn run(&self, line: &str) -> (String, bool) {
        let answer = self.ask(line);
        let (text, status) = answer.rsplit_once("\nstatus=").unwrap_or((&answer, "none"));
        (text.trim_end().to_owned(), status == "exit status: 0")
    }

    /// Output of a shell line that must succeed.
    pub(crate) fn output(&self, line: &str) -> String {
        let (text, fine) = self.run(line);
        assert!(fine, "{line}: {text}");
        text
    }

    pub(crate) fn ask(&self, line: &str) -> String {
        ask_at(&self.spec.socket, line)
    }

    /// Runs a Python program inside, whose output must be as wanted.
    pub(crate) fn python(&self, program: &str) -> String {
        self.output(&format!("/usr/bin/python3 - <<'PINFOLD_END'\n{program}\nPINFOLD_END"))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.launched.pidfd, Signal::KILL);
        wait_gone(&self.launched);
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.remove();
        }
    }
}

/// The test guest's answer to one line.
pub(crate) fn ask_at(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the guest listens");
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Waits until the first process has ended (its handle becomes readable).
pub(crate) fn wait_gone(launched: &Launched) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut set = [PollFd::new(&launched.pidfd, PollFlags::IN)];
    let ready = poll(&mut set, Some(&limit)).unwrap_or(0);
    assert!(ready > 0 || std::thread::panicking(), "the guest did not end");
}

/// Asks until `condition` holds; fails the test when it does not in ten seconds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come to be");
        std::thread::yield_now();
    }
}
