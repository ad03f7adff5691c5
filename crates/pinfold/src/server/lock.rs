//! One server per home: a lock that ends with the process, and the pid of who holds it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    time::Duration,
};

use pinfold_types::{Error, ErrorCode, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};

use crate::home::Home;

/// How long a server that is leaving is waited for.
const LEAVING: Duration = Duration::from_secs(20);
/// The word after the pid of a server that was started on demand.
const ON_DEMAND: &str = "on-demand";

/// The lock, held while it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: i32,
    on_demand: bool,
}

/// A server that lives, by a descriptor that no other process can come to mean.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its process id.
    pub(crate) pid: i32,
    process: OwnedFd,
}

/// Whether a home has a server.
#[derive(Debug)]
pub(crate) enum Serving {
    /// None, and none can start while this lock is held. No lock where there is no home.
    No(Option<Lock>),
    /// This one.
    By(Running),
}

impl Serving {
    /// Looks who holds the lock of a home.
    ///
    /// # Errors
    /// When the lock cannot be read, or its holder does not have it open: it starts or ends now.
    pub(crate) fn of(home: &Home) -> Result<Self> {
        let path = home.server_lock();
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(ErrorCode::Unavailable, format!("{}: {error}", path.display()))
        };
        let mut file = match open(&path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::No(None));
            }
            Err(error) => return Err(failed(&error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Self::No(Some(Lock { _file: file }))),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(failed(&errno)),
        }
        let unsure = || {
            Error::new(ErrorCode::Conflict, format!("{} changes hands just now", path.display()))
                .hint("try again")
        };
        let pid = holder(&mut file).map(|holder| holder.pid).ok_or_else(unsure)?;
        let process = Pid::from_raw(pid)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .ok_or_else(unsure)?;
        // A pid in a file may have been given to somebody else since: ours has the lock open.
        if !has_open(pid, &file) {
            return Err(unsure());
        }
        Ok(Self::By(Running { pid, process }))
    }
}

impl Running {
    /// Asks it to end in good order. One that has ended meanwhile was asked enough.
    pub(crate) fn ask_to_end(&self) -> Result<()> {
        match pidfd_send_signal(&self.process, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::new(
                ErrorCode::Forbidden,
                format!("the server with pid {} cannot be signalled: {errno}", self.pid),
            )),
        }
    }

    /// Waits for its end; false when it has not come in time. Blocks.
    pub(crate) fn ended(&self, within: Duration) -> bool {
        let until = std::time::Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            match poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                Ok(ready) => return ready > 0,
                Err(_) => return false,
            }
        }
    }
}

/// Whether a process has this very file open.
fn has_open(pid: i32, file: &File) -> bool {
    let Ok(ours) = file.metadata() else { return false };
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| {
        std::fs::metadata(entry.path())
            .is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
    })
}

fn open(path: &std::path::Path, create: bool) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

impl Lock {
    /// Takes the lock. A server that was started on demand makes way for one that somebody
    /// started by hand; otherwise a held lock is an error that names the holder.
    pub(super) fn take(home: &Home, on_demand: bool) -> Result<Self> {
        let path = home.server_lock();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::new(ErrorCode::Unavailable, format!("{} {what}: {error}", path.display()))
        };
        let mut file = open(&path, true).map_err(|error| failed("cannot be opened", &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => file = make_way(file, home, on_demand)?,
            Err(errno) => return Err(failed("cannot be locked", &errno)),
        }
        let word = if on_demand { format!(" {ON_DEMAND}") } else { String::new() };
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}{word}", std::process::id()))
            .map_err(|error| failed("cannot be written", &error))?;
        Ok(Self { _file: file })
    }
}

fn make_way(mut file: File, home: &Home, on_demand: bool) -> Result<File> {
    let holder = holder(&mut file);
    let may_wait = match holder {
        // Ours to replace: it serves commands until somebody wants a server to stay.
        Some(holder) if holder.on_demand && !on_demand => {
            if let Some(pid) = Pid::from_raw(holder.pid) {
                let _gone = kill_process(pid, Signal::TERM);
            }
            true
        }
        // We were started because no socket answered, so the holder starts or leaves.
        _ => on_demand,
    };
    if may_wait {
        // flock(2) has no time limit; a thread waits, and ends with the process if it is in vain.
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let waiting = std::thread::spawn(move || {
            let locked = flock(&file, FlockOperation::LockExclusive);
            let _late = tell.send(locked.map(|()| file));
        });
        if let Ok(Ok(file)) = told.recv_timeout(LEAVING) {
            let _ended = waiting.join();
            return Ok(file);
        }
    }
    let who = holder.map_or("another server".to_owned(), |holder| {
        format!("the server with pid {}", holder.pid)
    });
    Err(Error::new(ErrorCode::Conflict, format!("{who} uses {} already", home.path().display()))
        .hint("stop it first (`pinfold down` leaves workspaces running), or give another --home"))
}

fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    Read::by_ref(file).take(64).read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    Some(Holder { pid, on_demand: words.next() == Some(ON_DEMAND) })
}
