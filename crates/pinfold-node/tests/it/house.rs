//! A home for one test, removed with everything in it whatever happens.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use pinfold_disk::{DiskKind, Pool};
use pinfold_namespace::Cgroups;
use pinfold_node::{LocalNode, NodeOptions, home_tag};
use pinfold_store::Store;
use pinfold_types::{
    Mode,
    api::RecoveryAction,
    config::Config,
    exec::{ExecResult, ExecSpec},
    workspace::{CreateWorkspace, WorkspaceInfo},
};

/// A temporary home. Its workspaces are destroyed and its pool unmounted at the end.
pub(crate) struct House {
    dir: tempfile::TempDir,
    pub(crate) config: Config,
    /// The store of the node that is open.
    present: Mutex<Option<Store>>,
}

/// Programs built beside the tests: `target/<profile>/NAME`.
fn program(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let own = std::env::current_exe().expect("the test's own path");
        own.parent().and_then(Path::parent).expect("target/PROFILE/deps").to_path_buf()
    });
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build -p pinfold-guest -p pinfold-namespace",
        path.display()
    );
    path
}

impl House {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("pfnode")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("a temporary home");
        let mut config = Config::default();
        config.pool.loop_bytes = Some(4 << 30);
        config.pool.min_free_bytes = 0;
        // Tests run side by side: homes do not share ranges of uids.
        config.workspaces.uid_base = 0x4000_0000;
        Self { dir, config, present: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn store(&self) -> Store {
        Store::open(self.path().join("state.db")).await.expect("a store")
    }

    /// The store of the node that is open.
    pub(crate) fn present(&self) -> Store {
        self.present.lock().expect("not poisoned").clone().expect("a node is open")
    }

    async fn options(&self) -> NodeOptions {
        let store = self.store().await;
        *self.present.lock().expect("not poisoned") = Some(store.clone());
        let mut options = NodeOptions::new(
            self.path().to_path_buf(),
            self.config.clone(),
            store,
            program("pinfold-launcher"),
            program("pinfold-guest"),
        );
        options.reattach_grace = Duration::from_secs(1);
        options
    }

    pub(crate) async fn open(&self) -> (LocalNode, Vec<RecoveryAction>) {
        LocalNode::open(self.options().await).await.expect("a node")
    }

    /// Lets go of a node as the end of its process would: nothing is tidied. What was on its way
    /// to the disk gets there, so that a test knows what the next server will read.
    pub(crate) async fn crash(&self, node: LocalNode) {
        drop(node);
        let store = self.present.lock().expect("not poisoned").take();
        store.expect("a node was open").close().await;
    }

    /// Kills a process.
    pub(crate) fn kill(pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    }

    /// Whether a process is there and not a zombie.
    pub(crate) fn alive(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// What is left of workspaces: disks, cgroups, run directories.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let home = self.path().canonicalize().expect("a home");
        let cgroups = Cgroups::detect(&home_tag(&home));
        let mut left: Vec<String> =
            cgroups.list().iter().map(|id| format!("cgroup {id}")).collect();
        let runs = std::fs::read_dir(home.join("run")).expect("runs");
        left.extend(runs.flatten().map(|entry| format!("run {}", entry.path().display())));
        let pool = Pool::open(&self.config.pool, &home, Mode::Root).expect("the pool");
        let disks = pool.list().expect("a list");
        let disks = disks.iter().filter(|disk| disk.kind == DiskKind::Workspace);
        left.extend(disks.map(|disk| format!("disk {}", disk.id)));
        left
    }
}

impl Drop for House {
    fn drop(&mut self) {
        sweep(self.path(), &self.config);
    }
}

/// Kills and unmounts whatever still belongs to a home, through the rooms that made it.
#[expect(clippy::print_stderr, reason = "a test that cannot tidy up says so")]
fn sweep(home: &Path, config: &Config) {
    let Ok(home) = home.canonicalize() else { return };
    let cgroups = Cgroups::detect(&home_tag(&home));
    for id in cgroups.list() {
        let Some(cgroup) = cgroups.open(&id) else { continue };
        let ended = cgroup.thaw().and_then(|()| cgroup.kill()).and_then(|()| cgroup.remove());
        if let Err(err) = ended {
            eprintln!("sweep: {id}: {err} {:?}", err.internal);
        }
    }
    cgroups.remove_base();
    let closed = Pool::open(&config.pool, &home, Mode::Root).and_then(Pool::close);
    if let Err(err) = closed {
        eprintln!("sweep: the pool: {err} {:?}", err.internal);
    }
}

/// Runs a command and gathers its output.
pub(crate) async fn sh(node: &LocalNode, reference: &str, line: &str) -> (ExecResult, String) {
    let stream = node.exec(reference, ExecSpec::argv(["/bin/sh", "-c", line])).await.expect("exec");
    let (result, out, err) = stream.collect(1 << 20).await.expect("an end");
    let text = String::from_utf8_lossy(&out).into_owned() + &String::from_utf8_lossy(&err);
    (result, text)
}

/// A request that only has a name.
pub(crate) fn named(name: &str) -> CreateWorkspace {
    CreateWorkspace { name: Some(name.parse().expect("a name")), ..Default::default() }
}

pub(crate) async fn create(node: &LocalNode, name: &str) -> WorkspaceInfo {
    node.create(named(name)).await.expect("a workspace")
}

pub(crate) fn gone(node: &LocalNode, name: &str) -> bool {
    node.get(name).is_err()
}

/// Waits, at most half a minute, until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect(what);
}
