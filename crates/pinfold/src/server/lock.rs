//! One server per home: a lock that ends with the process, and the pid of who holds it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use pinfold_types::{Error, ErrorCode, Result};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use crate::home::Home;

/// How long a server that is leaving is waited for.
const LEAVING: Duration = Duration::from_secs(20);
/// The word after the pid of a server that was started on demand.
const ON_DEMAND: &str = "on-demand";

/// The lock, held while it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: i32,
    on_demand: bool,
}

impl Lock {
    /// Takes the lock. A server that was started on demand makes way for one that somebody
    /// started by hand; otherwise a held lock is an error that names the holder.
    pub(super) fn take(home: &Home, on_demand: bool) -> Result<Self> {
        let path = home.server_lock();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::new(ErrorCode::Unavailable, format!("{} {what}: {error}", path.display()))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| failed("cannot be opened", &error))?;
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
        .hint("stop it first (kill -TERM PID leaves workspaces running), or give another --home"))
}

fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    Read::by_ref(file).take(64).read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    Some(Holder { pid, on_demand: words.next() == Some(ON_DEMAND) })
}
