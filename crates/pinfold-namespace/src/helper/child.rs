//! The launch's child: builds the walls from inside, keeps nothing, becomes the guest.

use std::{
    cell::RefCell,
    os::fd::{AsFd, OwnedFd},
};

use pinfold_sys::{
    launch::{self, OwnNamespaces},
    netif,
};
use pinfold_types::Mode;
use rustix::{
    fs::{CWD, Mode as FileMode, OFlags},
    mount::{MountAttrFlags, UnmountFlags, unmount},
};

use super::{Launch, device::Devices, drops, files, mounts, procfs::Kernel, restrict};
use crate::{
    failure::{AtStep, Failure, Step},
    spec::lacks,
    wire::{self, Reply},
};

/// Where the staging directory is mounted, in the child's own view, before the root changes.
const STAGING: &str = "/tmp";

/// Exit code of a child that could not become the guest; the reason went to the server.
const NOT_STARTED: i32 = 125;

/// Builds the walls and executes the guest. Returns an exit code only when that failed.
pub(super) fn run(launch: &Launch<'_>, parent: &OwnedFd) -> i32 {
    // An error without a failure stands for a parent that failed and has said why.
    if let Err(Some(failure)) = become_guest(launch, parent) {
        launch.answer(&Reply::Failed(failure), &[]);
    }
    NOT_STARTED
}

/// Steps with their times, kept when asked for.
struct Trace<'a> {
    launch: &'a Launch<'a>,
    marks: RefCell<Vec<(String, u64)>>,
}

impl Trace<'_> {
    fn mark(&self, name: &str) {
        if self.launch.request.extras.trace {
            let passed = self.launch.started.elapsed().as_micros();
            let passed = u64::try_from(passed).unwrap_or(u64::MAX);
            self.marks.borrow_mut().push((name.to_owned(), passed));
        }
    }
}

fn become_guest(launch: &Launch<'_>, parent: &OwnedFd) -> Result<(), Option<Failure>> {
    let (spec, extras) = (&launch.request.spec, &launch.request.extras);
    let trace = Trace { launch, marks: RefCell::new(Vec::new()) };
    trace.mark("cloned");
    let plan = mounts::plan(spec);
    mounts::check(&plan)?;
    let mut own = OwnNamespaces::MOUNT.and(OwnNamespaces::IPC);
    if !lacks!(extras, Network) {
        own = own.and(OwnNamespaces::NET);
    }
    if !lacks!(extras, SystemNames) {
        own = own.and(OwnNamespaces::UTS).and(OwnNamespaces::CGROUP);
    }
    launch::unshare(own).at(Step::Namespaces)?;
    trace.mark("namespaces");
    if own.has(OwnNamespaces::NET) {
        netif::loopback_up().at(Step::Loopback)?;
        small_socket_buffers()?;
    }
    if own.has(OwnNamespaces::UTS) {
        rustix::system::sethostname(spec.hostname.as_bytes()).on(Step::Hostname, &spec.hostname)?;
    }
    trace.mark("loopback and host name");

    let mut descriptors = receive(parent)?;
    trace.mark("mounts received");
    let (listener, score) = (descriptors.remove(0), descriptors.remove(0));
    let nodes = (launch.request.mode == Mode::Root).then(|| descriptors.remove(0));
    let trees = match launch.request.mode {
        Mode::Root => descriptors,
        // Still with the user's own id, which may enter the user's own directories.
        Mode::User => mounts::open_trees(&plan.trees, None)?,
    };
    become_root().at(Step::BecomeRoot)?;
    // No signal of the launcher's session is for the workspace, nor the other way round.
    rustix::process::setsid().at(Step::BecomeRoot)?;

    // From here on this is root of its own user namespace, with the host's tree still in view.
    rustix::process::umask(FileMode::empty());
    stage()?;
    let devices = Devices::open(spec.shm_bytes, nodes)?;
    let kernel = Kernel::open()?;
    trace.mark("dev, proc and sys opened");
    let covers = mounts::build(&plan, trees)?;
    trace.mark("overlays mounted");
    enter_root()?;
    trace.mark("root changed");

    // From here on every path is inside the workspace's own root, whatever links it holds.
    mounts::place_covers(covers)?;
    #[cfg(feature = "weaken")]
    if lacks!(extras, HostRoot) {
        files::ensure_directory("/host", 0o755)?;
        rustix::mount::mount_bind_recursive(".", "/host").at(Step::DetachHost)?;
    }
    unmount(".", UnmountFlags::DETACH).at(Step::DetachHost)?;
    rustix::process::chdir("/").at(Step::PivotRoot)?;
    trace.mark("host detached");
    devices.place()?;
    trace.mark("dev placed");
    #[cfg(feature = "weaken")]
    if lacks!(extras, Devices) && lacks!(extras, HostRoot) {
        rustix::mount::mount_bind_recursive("/host/dev", "/dev").at(Step::Dev)?;
    }
    kernel.place(spec.nested, !lacks!(extras, Masks))?;
    trace.mark("proc and sys placed");
    run_and_tmp()?;
    files::etc(&spec.hostname)?;
    trace.mark("small files");
    rustix::process::umask(FileMode::from_raw_mode(0o022));

    drops::resource_limits(spec.open_files)?;
    launch::default_signals().at(Step::Signals)?;
    if !lacks!(extras, NoNewPrivileges) {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges)?;
    }
    if !lacks!(extras, Landlock) {
        restrict::landlock(launch.prepared.landlock_abi, spec.nested)?;
    }
    trace.mark("privileges dropped");

    place_descriptors(launch, &listener, &score)?;
    #[cfg(feature = "weaken")]
    if lacks!(extras, Descriptor) {
        let host =
            rustix::fs::open("/host", OFlags::RDONLY, FileMode::empty()).at(Step::Descriptors)?;
        launch::place_descriptor(launch.prepared.proof, host.as_fd(), 9).at(Step::Descriptors)?;
    }
    if !lacks!(extras, Capabilities) {
        drops::capabilities().at(Step::Capabilities)?;
    }
    // The filter is last, so that it need not allow what building the walls takes. All that
    // follows are the answer to the server and the exec.
    if !lacks!(extras, Seccomp) {
        launch.prepared.filters.install(spec.nested).at(Step::Seccomp)?;
    }
    trace.mark("seccomp");
    let heard = launch.answer(
        &Reply::Ready {
            landlock_abi: launch.prepared.landlock_abi,
            namespaces: ["user", "mount", "pid", "net", "ipc", "uts", "cgroup", "time"]
                .map(str::to_owned)
                .to_vec(),
            trace: trace.marks.take(),
        },
        &[],
    );
    if !heard {
        // The server has died: nobody would ever speak to this workspace.
        return Err(None);
    }
    let error = launch::exec_descriptor(launch.guest.as_fd(), super::GUEST_NAME);
    Err(error).at(Step::Exec)?;
    Ok(())
}

/// Waits until the parent has mapped the ids and made the mounts.
fn receive(parent: &OwnedFd) -> Result<Vec<OwnedFd>, Option<Failure>> {
    let mut buffer = [0; 8];
    match wire::receive(parent, &mut buffer).at(Step::HandOver)? {
        Some((_, descriptors)) if descriptors.len() >= 2 => Ok(descriptors),
        _ => Err(None),
    }
}

/// What waits in a socket is not all charged to the workspace's memory (cgroup v1), so a TCP
/// socket of its network may hold little: 256 KiB each way instead of the machine's megabytes.
fn small_socket_buffers() -> Result<(), Failure> {
    for name in ["tcp_rmem", "tcp_wmem"] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        match std::fs::OpenOptions::new().write(true).open(&path) {
            Ok(mut file) => std::io::Write::write_all(&mut file, b"4096 65536 262144")
                .on(Step::Loopback, &path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).on(Step::Loopback, &path),
        }
    }
    Ok(())
}

fn become_root() -> Result<(), rustix::io::Errno> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// A small filesystem of our own to mount layers in, as the working directory.
fn stage() -> Result<(), Failure> {
    let staging = mounts::filesystem(
        "tmpfs",
        &[("mode", "700"), ("size", "1m"), ("nr_inodes", "1024")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .at(Step::Staging)?;
    mounts::attach(&staging, CWD, STAGING).on(Step::Staging, STAGING)?;
    rustix::process::chdir(STAGING).on(Step::Staging, STAGING)
}

/// Makes `r` the root. The host's tree is then stacked on it and reachable as the working
/// directory's mount only (`pivot_root(2)`, under NOTES).
fn enter_root() -> Result<(), Failure> {
    rustix::process::chdir("r").at(Step::PivotRoot)?;
    rustix::process::pivot_root(".", ".").at(Step::PivotRoot)
}

/// `/run` is new at each boot and charged to memory; `/tmp` stays on the workspace's disk.
fn run_and_tmp() -> Result<(), Failure> {
    files::ensure_directory("/run", 0o755)?;
    let run = mounts::filesystem(
        "tmpfs",
        &[("mode", "755"), ("size", "64m"), ("nr_inodes", "65536")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .at(Step::Run)?;
    mounts::attach(&run, CWD, "/run").at(Step::Run)?;
    rustix::fs::mkdir("/run/lock", FileMode::from_raw_mode(0o1777)).at(Step::Run)?;
    files::ensure_directory("/tmp", 0o1777)
}

/// 0, 1: null; 2: what it says when it cannot go on; 3: the listening socket; 4: the
/// configuration; 5: its own `oom_score_adj`. All else closes at the exec.
fn place_descriptors(
    launch: &Launch<'_>,
    listener: &OwnedFd,
    score: &OwnedFd,
) -> Result<(), Failure> {
    let place = |from: &OwnedFd, to| {
        launch::place_descriptor(launch.prepared.proof, from.as_fd(), to).at(Step::Descriptors)
    };
    // Copies above 5 first, so that placing one does not close another.
    let high = |from: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(from, 16).at(Step::Descriptors);
    let (listener, config, score) = (high(listener)?, high(&launch.config)?, high(score)?);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, FileMode::empty())
        .and_then(|null| rustix::io::fcntl_dupfd_cloexec(null, 16))
        .on(Step::Descriptors, "/dev/null")?;
    let last_words = high(&launch.last_words)?;
    place(&null, 0)?;
    place(&null, 1)?;
    place(&last_words, 2)?;
    place(&listener, 3)?;
    place(&config, 4)?;
    place(&score, 5)?;
    launch::close_on_exec_from(6).at(Step::Descriptors)
}
