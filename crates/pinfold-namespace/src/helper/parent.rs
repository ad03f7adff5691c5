//! The launch's parent: what only the host's rights can do.

use std::{
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use pinfold_sys::launch::{Cloned, OwnNamespaces, clone_process, exit_now};
use pinfold_types::Mode;
use rustix::{
    fs::{Mode as FileMode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use super::{Launch, child, device, mounts};
use crate::{
    cgroup::CgroupJoin,
    failure::{AtStep, Failure, Step},
    spec::IdRange,
    wire::{self, Reply},
};

/// Runs a launch to the point where the child needs nothing more. The exit code.
pub(super) fn run(launch: &Launch<'_>) -> i32 {
    match prepare(launch) {
        Ok(()) => 0,
        Err(failure) => {
            launch.answer(&Reply::Failed(failure), &[]);
            1
        }
    }
}

fn prepare(launch: &Launch<'_>) -> Result<(), Failure> {
    let spec = &launch.request.spec;
    check_ids(spec.ids)?;
    let into = join_cgroups(spec.cgroup.as_ref())?;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .at(Step::HandOver)?;
    // The slow ones (network, mounts) the child makes itself, while this process prepares.
    let own = OwnNamespaces::USER.and(OwnNamespaces::PID).and(OwnNamespaces::TIME);
    let as_itself = AsItself::begin(launch)?;
    let cloned = clone_process(launch.prepared.proof, own, into.as_ref().map(AsFd::as_fd))
        .at(Step::Namespaces)?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            drop(ours);
            exit_now(child::run(launch, &theirs));
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    as_itself.end()?;
    drop(theirs);
    launch.answer(&Reply::Pid(pid), &[pidfd.as_fd()]);
    let handed = hand_over(launch, pid, &ours);
    if handed.is_err() {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    }
    handed
}

/// The kernel charges what a user namespace takes (watches, queued signals, message queues) to
/// whoever made it as well (`user_namespaces(7)`, "per-user limits"). Made by the host's root, all
/// workspaces would share one allowance with it; so each is made with its own first id.
#[must_use]
struct AsItself(bool);

impl AsItself {
    fn begin(launch: &Launch<'_>) -> Result<Self, Failure> {
        // An ordinary user has one id to make them with.
        if launch.request.mode == Mode::User {
            return Ok(Self(false));
        }
        let keep = rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP;
        rustix::thread::set_capabilities_secure_bits(keep).at(Step::MapIds)?;
        effective_ids(launch.request.spec.ids.base)?;
        Ok(Self(true))
    }

    fn end(self) -> Result<(), Failure> {
        if self.0 { effective_ids(0) } else { Ok(()) }
    }
}

/// Changes the effective ids only; the real and saved ones stay root's.
fn effective_ids(id: u32) -> Result<(), Failure> {
    use rustix::{
        fs::{Gid, Uid},
        thread::{set_thread_res_gid, set_thread_res_uid},
    };
    set_thread_res_gid(Gid::ROOT, Gid::from_raw(id), Gid::ROOT).at(Step::MapIds)?;
    set_thread_res_uid(Uid::ROOT, Uid::from_raw(id), Uid::ROOT).at(Step::MapIds)
}

fn hand_over(launch: &Launch<'_>, pid: i32, child: &OwnedFd) -> Result<(), Failure> {
    let spec = &launch.request.spec;
    map_ids(launch, pid)?;
    let grouped = |join: &CgroupJoin| join.unified.is_some() || !join.tasks.is_empty();
    if !spec.cgroup.as_ref().is_some_and(grouped) {
        write_down(&spec.socket.with_file_name(super::FIRST_PROCESS), pid)?;
    }
    let mut passed = vec![listen(&spec.socket)?, memory_score(launch, pid)?];
    if launch.request.mode == Mode::Root {
        passed.push(device::make_nodes()?);
        let mapping = rustix::fs::open(
            format!("/proc/{pid}/ns/user"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            FileMode::empty(),
        )
        .at(Step::MapIds)?;
        passed.extend(mounts::open_trees(&mounts::plan(spec).trees, Some(mapping.as_fd()))?);
    }
    let borrowed: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
    match wire::send(child, b"go", &borrowed) {
        // The child has ended and said why itself.
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
        sent => sent.at(Step::HandOver),
    }
}

/// The child's own `oom_score_adj`, which it cannot open itself once it is the guest. A server
/// that is spared when memory runs out does not spare its workspaces, and none of them may give
/// itself less than 0: root's write sets the least (proc(5)).
fn memory_score(launch: &Launch<'_>, pid: i32) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path);
    let mut file = file.on(Step::Descriptors, &path)?;
    if launch.request.mode == Mode::Root {
        // Refused where it is above 0 and this root may not lower it: then it stays.
        let _ = file.write_all(b"0");
    }
    Ok(file.into())
}

/// Writes the new process down before it is let go on.
fn write_down(file: &Path, pid: i32) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let start_time = crate::start_time(pid).unwrap_or(0);
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(file)
        .and_then(|mut file| writeln!(file, "{pid} {start_time}"))
        .on(Step::GuestSocket, file.display())
}

/// Moves this process into the v1 groups; the v2 one is opened, for the clone itself.
fn join_cgroups(join: Option<&CgroupJoin>) -> Result<Option<OwnedFd>, Failure> {
    let Some(join) = join else { return Ok(None) };
    for file in &join.tasks {
        write_once(file, b"0").on(Step::JoinCgroup, file.display())?;
    }
    let Some(directory) = &join.unified else { return Ok(None) };
    rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        FileMode::empty(),
    )
    .on(Step::JoinCgroup, directory.display())
    .map(Some)
}

fn check_ids(ids: IdRange) -> Result<(), Failure> {
    if ids.base == 0 || ids.count == 0 || ids.base.checked_add(ids.count).is_none() {
        return Err(Failure::said(
            Step::MapIds,
            "",
            format!(
                "the range {}+{} is empty, too high, or holds the host's root",
                ids.base, ids.count
            ),
        ));
    }
    Ok(())
}

fn map_ids(launch: &Launch<'_>, pid: i32) -> Result<(), Failure> {
    let ids = launch.request.spec.ids;
    match launch.request.mode {
        Mode::Root => {
            let line = format!("0 {} {}\n", ids.base, ids.count);
            for file in ["uid_map", "gid_map"] {
                write_once(Path::new(&format!("/proc/{pid}/{file}")), line.as_bytes())
                    .on(Step::MapIds, file)?;
            }
            Ok(())
        }
        Mode::User => {
            // The mappers' exit codes are wanted, so their ends must not be reaped unseen.
            pinfold_sys::launch::default_signals().at(Step::Signals)?;
            for program in ["newuidmap", "newgidmap"] {
                run_mapper(
                    program,
                    &[pid.to_string(), "0".into(), ids.base.to_string(), ids.count.to_string()],
                )?;
            }
            Ok(())
        }
    }
}

fn run_mapper(program: &str, arguments: &[String]) -> Result<(), Failure> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(std::process::Stdio::null())
        .output()
        .on(Step::MapIds, program)?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
    Err(Failure::said(Step::MapIds, program, said))
}

fn write_once(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(bytes)
}

/// A listening socket at `path`, for its owner only. A socket left there by an earlier boot is
/// replaced.
fn listen(path: &Path) -> Result<OwnedFd, Failure> {
    /// Connections waiting for accept(2).
    const BACKLOG: i32 = 64;
    let object = path.display();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::said(Step::GuestSocket, object.to_string(), "not a file's path"));
    };
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .on(Step::GuestSocket, &object)?;
    // A unix address holds 107 bytes; a path may be longer, so it is named from its directory.
    let directory = rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        FileMode::empty(),
    )
    .on(Step::GuestSocket, &object)?;
    match rustix::fs::unlinkat(&directory, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).on(Step::GuestSocket, &object),
    }
    let near = Path::new("/proc/self/fd")
        .join(std::os::fd::AsRawFd::as_raw_fd(&directory).to_string())
        .join(name);
    let address = SocketAddrUnix::new(&near).on(Step::GuestSocket, &object)?;
    // This process only makes this one file, so the mask need not be put back.
    rustix::process::umask(FileMode::from_raw_mode(0o177));
    rustix::net::bind(&socket, &address).on(Step::GuestSocket, &object)?;
    rustix::net::listen(&socket, BACKLOG).on(Step::GuestSocket, &object)?;
    Ok(socket)
}
