//! Our standard output and error as the command writes them.
//!
//! Short output to something that can take it now is written at once. Anything else goes through
//! a thread that may block, so that a slow reader never keeps signals and input waiting; at most
//! four messages lie between, so that it does slow the command.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use pinfold_types::Error;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
};
use tokio::sync::{mpsc, oneshot};

use crate::output::unwritable;

/// A pipe that polls writable takes this much without blocking (pipe(7), `PIPE_BUF`).
const SURE_BYTES: usize = 4096;

/// The stream byte of standard error.
const STDERR: u8 = 2;

#[derive(Debug)]
pub(super) struct Sink {
    writer: Option<Writer>,
    failed: Arc<Failed>,
}

/// The first write that failed: its stream, and why.
type Failed = OnceLock<(u8, io::Error)>;

#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<(u8, Bytes)>,
    done: oneshot::Receiver<()>,
}

impl Sink {
    pub(super) fn new() -> Self {
        Self { writer: None, failed: Arc::default() }
    }

    /// Writes all of it; false when the reader has gone.
    pub(super) async fn write(&mut self, stream: u8, data: Bytes) -> bool {
        if self.writer.is_none() && takes_now(stream, data.len()) {
            return put_or_note(stream, &data, &self.failed);
        }
        if self.writer.is_none() {
            self.writer = start(Arc::clone(&self.failed));
        }
        let Some(writer) = &self.writer else {
            return put_or_note(stream, &data, &self.failed);
        };
        writer.queue.send((stream, data)).await.is_ok() && self.failed.get().is_none()
    }

    /// A word of our own on standard error.
    pub(super) async fn remark(&mut self, text: &str) {
        self.write(STDERR, Bytes::copy_from_slice(text.as_bytes())).await;
    }

    /// Waits until everything is written; false when the reader has gone.
    pub(super) async fn finish(&mut self) -> bool {
        if let Some(Writer { queue, done }) = self.writer.take() {
            drop(queue);
            // An error means that the thread ended early, which `failed` says too.
            let _ended = done.await;
        }
        self.failed.get().is_none()
    }

    /// Why writing failed, where that is not the reader's having gone.
    pub(super) fn failure(&self) -> Option<Error> {
        let (stream, error) = self.failed.get()?;
        let name = if *stream == STDERR { "standard error" } else { "standard output" };
        (error.kind() != io::ErrorKind::BrokenPipe).then(|| unwritable(name, error))
    }
}

/// Writes all of it; false, with the reason kept, when that fails.
fn put_or_note(stream: u8, data: &[u8], failed: &Failed) -> bool {
    match put(stream, data) {
        Ok(()) => true,
        Err(error) => {
            let _first = failed.set((stream, error));
            false
        }
    }
}

fn start(failed: Arc<Failed>) -> Option<Writer> {
    let (queue, mut work) = mpsc::channel::<(u8, Bytes)>(4);
    let (finished, done) = oneshot::channel();
    std::thread::Builder::new()
        .name("output".into())
        .spawn(move || {
            while let Some((stream, data)) = work.blocking_recv() {
                if !put_or_note(stream, &data, &failed) {
                    break;
                }
            }
            let _gone = finished.send(());
        })
        .ok()?;
    Some(Writer { queue, done })
}

fn takes_now(stream: u8, length: usize) -> bool {
    let check = |fd: BorrowedFd<'_>| {
        let kind = fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if matches!(kind, Ok(FileType::RegularFile)) {
            return true;
        }
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        length <= SURE_BYTES
            && poll(&mut fds, Some(&now)).is_ok()
            && fds[0].revents().contains(PollFlags::OUT)
    };
    if stream == STDERR { check(io::stderr().as_fd()) } else { check(io::stdout().as_fd()) }
}

/// Straight to the descriptor: `Stdout` would look for line feeds in every byte.
fn put(stream: u8, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let wrote = if stream == STDERR {
            rustix::io::write(io::stderr(), data)
        } else {
            rustix::io::write(io::stdout(), data)
        };
        match wrote {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => data = &data[count..],
            Err(rustix::io::Errno::INTR) => {}
            // Somebody else made the shared description non-blocking: wait for room.
            Err(rustix::io::Errno::AGAIN) => wait(stream)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(stream: u8) -> io::Result<()> {
    let (out, err) = (io::stdout(), io::stderr());
    let fd = if stream == STDERR { err.as_fd() } else { out.as_fd() };
    match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
