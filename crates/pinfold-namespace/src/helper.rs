//! Inside of `pinfold-launcher`: single-threaded, synchronous, one fork per request.
//!
//! Three processes take part in a launch. The *launcher* only receives, forks and forgets, so a
//! slow launch delays no other. The *parent* (a copy of it, with the host's rights) joins the
//! cgroups, clones the *child* into its namespaces, maps its ids and hands it the mounts only
//! the host can make. The child builds the walls from inside, gives up what it may not keep and
//! becomes the guest. Parent and child work at the same time where they can.

mod child;
mod device;
mod drops;
mod files;
mod mounts;
mod parent;
mod procfs;
mod restrict;

use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use pinfold_sys::launch::{
    Cloned, OwnNamespaces, SingleThreaded, clone_process, exit_now, reap_children_automatically,
};
use rustix::fs::{MemfdFlags, Mode, SealFlags};

use crate::{
    failure::{AtStep, Failure, Step},
    seccomp::Filters,
    spec::lacks,
    wire::{self, Reply, Request},
};

pub(crate) use restrict::NEWEST_LANDLOCK;

/// What a guest finds as its own name, whatever its file is called.
const GUEST_NAME: &std::ffi::CStr = c"pinfold-guest";

/// Beside the guest's socket, where a workspace is in no cgroup: the pid and start time of its
/// first process, so that a server after a crash finds it before it was recorded.
pub const FIRST_PROCESS: &str = "guest.pid";

/// Everything the launcher prepared once.
pub(crate) struct Prepared {
    proof: SingleThreaded,
    filters: Filters,
    landlock_abi: u32,
}

/// One launch as its two processes see it.
pub(crate) struct Launch<'a> {
    prepared: &'a Prepared,
    request: Request,
    reply: OwnedFd,
    config: OwnedFd,
    last_words: OwnedFd,
    guest: &'a OwnedFd,
    started: Instant,
}

impl Launch<'_> {
    /// Whether the server is still there to hear it.
    fn answer(&self, reply: &Reply, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> bool {
        let text = serde_json::to_vec(reply).expect("replies have no map with odd keys");
        wire::send(&self.reply, &text, descriptors).is_ok()
    }
}

/// The program `pinfold-launcher`: serves requests from the socket on standard input until it
/// ends. As the first process of a throw-away workspace it is the guest of `pinfold doctor`.
pub fn main() -> ExitCode {
    let guest = std::env::args_os()
        .next()
        .is_some_and(|name| name == GUEST_NAME.to_str().unwrap_or_default());
    let first = rustix::process::getpid().as_raw_nonzero().get() == 1;
    let result = if guest && first { crate::probe::run_inside() } else { serve() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the launcher's only way to speak when it cannot serve")]
fn complain(error: &std::io::Error) {
    eprintln!("pinfold-launcher: {error}");
}

fn serve() -> std::io::Result<()> {
    let proof = SingleThreaded::check()?;
    // Its own session: a Ctrl-C at the server's terminal is not meant for workspaces.
    let _ = rustix::process::setsid();
    // Children of a parent that is done come to us, and the kernel reaps them at their end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    reap_children_automatically()?;
    let prepared =
        Prepared { proof, filters: Filters::build(), landlock_abi: restrict::landlock_abi() };
    let socket = rustix::stdio::stdin();
    let mut programs = Programs::default();
    let mut buffer = vec![0; wire::MAX_MESSAGE];
    loop {
        let Some((bytes, descriptors)) = wire::receive(socket, &mut buffer)? else {
            return Ok(());
        };
        let started = Instant::now();
        let Ok([reply, config, last_words]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            continue;
        };
        let given = Given { reply: &reply, config, last_words };
        if let Err(failure) = start(&prepared, &mut programs, bytes, given, started) {
            let text = serde_json::to_vec(&Reply::Failed(failure)).expect("plain data");
            let _ = wire::send(&reply, &text, &[]);
        }
    }
}

/// The descriptors of a request.
struct Given<'a> {
    reply: &'a OwnedFd,
    config: OwnedFd,
    last_words: OwnedFd,
}

fn start(
    prepared: &Prepared,
    programs: &mut Programs,
    bytes: &[u8],
    given: Given<'_>,
    started: Instant,
) -> Result<(), Failure> {
    let request: Request = serde_json::from_slice(bytes)
        .map_err(|error| Failure::said(Step::Request, "", error.to_string()))?;
    let readable = lacks!(request.extras, Dumpable);
    let guest = programs.get(&request.spec.guest, readable)?;
    let Given { reply, config, last_words } = given;
    let reply = reply.try_clone().at(Step::Request)?;
    match clone_process(prepared.proof, OwnNamespaces::NONE, None).at(Step::Fork)? {
        Cloned::Parent { .. } => Ok(()),
        Cloned::Child => {
            let launch = Launch { prepared, request, reply, config, last_words, guest, started };
            exit_now(parent::run(&launch));
        }
    }
}

/// Sealed copies of guest programs in memory.
///
/// A copy, so that nothing inside can reach the file on the host through `/proc/PID/exe`;
/// sealed, so that no workspace can change what others run; mode 0111, because the kernel keeps
/// a process whose program it may not read from being traced, dumped or looked into, from its
/// first instruction on (execve(2), "dumpable").
#[derive(Default)]
struct Programs(HashMap<(PathBuf, bool), (Stamp, OwnedFd)>);

type Stamp = (u64, u64, i64, u64);

impl Programs {
    fn get(&mut self, path: &Path, readable: bool) -> Result<&OwnedFd, Failure> {
        let key = (path.to_owned(), readable);
        let stat = rustix::fs::stat(path).on(Step::GuestProgram, path.display())?;
        let stamp: Stamp =
            (stat.st_dev, stat.st_ino, stat.st_mtime, u64::try_from(stat.st_size).unwrap_or(0));
        if self.0.get(&key).is_none_or(|(known, _)| *known != stamp) {
            let copy = sealed_copy(path, readable).on(Step::GuestProgram, path.display())?;
            self.0.insert(key.clone(), (stamp, copy));
        }
        Ok(&self.0.get(&key).expect("just inserted").1)
    }
}

fn sealed_copy(path: &Path, readable: bool) -> std::io::Result<OwnedFd> {
    /// Not in rustix: without it, a machine with `vm.memfd_noexec=1` makes the file unexecutable.
    const EXECUTABLE: u32 = 0x10;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory =
        rustix::fs::memfd_create("pinfold-guest", flags | MemfdFlags::from_bits_retain(EXECUTABLE))
            // Linux before 6.3 does not know the flag and needs none.
            .or_else(|_| rustix::fs::memfd_create("pinfold-guest", flags))?;
    let mut target = File::from(memory);
    std::io::copy(&mut File::open(path)?, &mut target)?;
    rustix::fs::fchmod(&target, Mode::from_raw_mode(if readable { 0o555 } else { 0o111 }))?;
    rustix::fs::fcntl_add_seals(
        &target,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    // A descriptor open for writing forbids execution (ETXTBSY): reopen it for reading.
    let read_only = rustix::fs::open(
        format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target.as_fd())),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(read_only)
}
