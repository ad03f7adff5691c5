//! Starting a server on demand: one at a time, and told apart from failures by what it says
//! itself on a pipe.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, BufRead, BufReader},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    process::{Command, Stdio},
    time::Duration,
};

use pinfold_types::{Error, ErrorCode, Result};
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixStream;

use crate::home::Home;

/// How long a server may take to answer, recovery of all workspaces included.
const READY: Duration = Duration::from_mins(2);

/// A longer log is set aside before a server starts.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// The first line of a server that is ready.
pub(crate) const READY_LINE: &str = "ready";

/// Whether this error of `connect` means that no server runs.
pub(super) fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Starts a server and returns when it answers. Two commands at once start one: the second waits
/// for the lock of the first, and then finds the server.
pub(super) async fn start(home: &Home) -> Result<()> {
    let own = home.clone();
    // Both the lock and the pipe are waited for in a thread, so that the wait is bounded.
    let work = tokio::task::spawn_blocking(move || launch(&own));
    match tokio::time::timeout(READY, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(panicked)) => Err(Error::internal(panicked)),
        Err(_) => Err(Error::new(
            ErrorCode::NoServer,
            format!("the server did not get ready within {} s", READY.as_secs()),
        )
        .hint(format!("look at {}", home.log().display()))),
    }
}

fn launch(home: &Home) -> Result<()> {
    let failed = |what: &str, error: io::Error| {
        Error::new(ErrorCode::NoServer, format!("no server could be started: {what}: {error}"))
            .hint("run it in the foreground to see more: pinfold up")
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home.path())
        .map_err(|error| failed(&home.path().display().to_string(), error))?;
    let lock = private(&home.start_lock(), false)
        .map_err(|error| failed(&home.start_lock().display().to_string(), error))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed("lock", error.into()))?;
    if std::os::unix::net::UnixStream::connect(home.socket()).is_ok() {
        return Ok(());
    }
    rotate(home);
    let log = private(&home.log(), true)
        .map_err(|error| failed(&home.log().display().to_string(), error))?;
    let program = std::env::current_exe().map_err(|error| failed("this program", error))?;
    let mut child = Command::new(program)
        .arg("--home")
        .arg(home.path())
        .args(["up", "--on-demand"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed("this program", error))?;
    let pipe = child.stdout.take().expect("stdout was piped");
    let mut said = String::new();
    let read = BufReader::new(io::Read::take(pipe, 64 << 10)).read_line(&mut said);
    read.map_err(|error| failed("its report", error))?;
    let said = said.trim();
    if said == READY_LINE {
        return Ok(());
    }
    let _reaped = child.wait();
    match serde_json::from_str::<Error>(said) {
        Ok(error) => Err(error),
        Err(_) => Err(Error::new(ErrorCode::NoServer, "the server ended before it was ready")
            .hint(format!("look at {}", home.log().display()))),
    }
}

/// Keeps the log of earlier servers within bounds: one older file beside it.
fn rotate(home: &Home) {
    let log = home.log();
    if log.symlink_metadata().is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
        let _kept = std::fs::rename(&log, log.with_extension("log.1"));
    }
}

fn private(path: &std::path::Path, append: bool) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .append(append)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Whether a server answers on this socket now.
pub(crate) async fn answers(home: &Home) -> bool {
    UnixStream::connect(home.socket()).await.is_ok()
}
