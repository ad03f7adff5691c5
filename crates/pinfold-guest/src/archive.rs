//! Trees as tar, in and out, streaming.
//!
//! The format is POSIX ustar (IEEE Std 1003.1, pax) with the long names of GNU tar, which every
//! reader knows; pax records are understood. Tar work reads and writes in the ordinary way on a
//! thread of its own, a bounded number of them, joined to the channel by short queues.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    path::Path,
    thread,
};

use bytes::{Buf, Bytes, BytesMut};
use pinfold_proto::{ArchiveOptions, FileStart, Kind};
use pinfold_types::{Error, ErrorCode, exec::check_path};
use tokio::sync::{mpsc, oneshot};

use crate::channel::{Gone, Incoming, Stream};

pub mod header;
pub mod pack;
pub mod unpack;

/// Archives at once.
const MAX_JOBS: usize = 8;
/// Pieces between the thread and the channel, and their size.
const QUEUE: usize = 4;
const PIECE: usize = 128 << 10;

thread_local! {
    static JOBS: Cell<usize> = const { Cell::new(0) };
}

/// Counts an archive as long as it lives.
struct Job;

impl Job {
    fn begin() -> Result<Self, Error> {
        if JOBS.get() >= MAX_JOBS {
            return Err(Error::new(
                ErrorCode::RateLimited,
                format!("{MAX_JOBS} archives of this workspace are under way, the most at once"),
            )
            .hint("wait for one to end"));
        }
        JOBS.set(JOBS.get() + 1);
        Ok(Self)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        JOBS.set(JOBS.get().saturating_sub(1));
    }
}

fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Error> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(move || drop(done.send(work())))
        .map_err(|error| crate::failure::on("start a thread for the archive", &error))?;
    Ok(result)
}

fn cut_off() -> Error {
    Error::internal("an archive's thread ended without a word")
}

/// Gathers small writes into pieces for the channel.
struct Outlet {
    pieces: mpsc::Sender<Bytes>,
    buffer: BytesMut,
    /// Told with the first piece, so that what fails before is an answer and no broken stream.
    begun: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Write for Outlet {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Some(begun) = self.begun.take() {
            drop(begun.send(Ok(())));
        }
        let piece = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(2 * PIECE));
        self.pieces
            .blocking_send(piece.freeze())
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Sends a path as tar.
pub async fn get(stream: Stream, path: String) {
    let prepared = check_path(&path).and_then(|()| Job::begin());
    let _job = match prepared {
        Ok(job) => job,
        Err(error) => return stream.fail(&error),
    };
    let (pieces, mut ready) = mpsc::channel(QUEUE);
    let (begun, found) = oneshot::channel();
    let work = move || {
        let buffer = BytesMut::with_capacity(2 * PIECE);
        let mut outlet = Outlet { pieces, buffer, begun: Some(begun) };
        let packed = pack::Source::open(&path).and_then(|source| source.pack(&mut outlet));
        match (packed, outlet.begun.take()) {
            (Err(error), Some(begun)) => {
                drop(begun.send(Err(error)));
                Ok(())
            }
            (packed, _) => packed,
        }
    };
    let done = match on_thread(work) {
        Ok(done) => done,
        Err(error) => return stream.fail(&error),
    };
    match found.await {
        Ok(Ok(())) => stream.message(&FileStart::default()),
        Ok(Err(error)) => return stream.fail(&error),
        Err(_) => return stream.fail(&cut_off()),
    }
    while let Some(piece) = ready.recv().await {
        if stream.send(Kind::Data0, piece).await.is_err() {
            // The thread's next piece finds nobody and ends it.
            return;
        }
    }
    match done.await.unwrap_or_else(|_| Err(cut_off())) {
        Ok(()) => stream.close(&()),
        Err(error) => stream.fail(&error),
    }
}

/// What the thread reads: pieces until their end. A channel that closes early is not the end.
struct Inlet {
    pieces: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Read for Inlet {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.ended = true,
                None => return Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            }
        }
        let now = self.piece.len().min(space.len());
        self.piece.copy_to_slice(space.get_mut(..now).unwrap_or_default());
        Ok(now)
    }
}

/// Takes a tar and unpacks it below a directory.
pub async fn put(stream: Stream, path: String, options: ArchiveOptions) {
    let prepared = check_path(&path).and_then(|()| Job::begin());
    let _job = match prepared {
        Ok(job) => job,
        Err(error) => return stream.fail(&error),
    };
    let (sender, pieces) = mpsc::channel(QUEUE);
    let work = move || {
        let inlet = Inlet { pieces, piece: Bytes::new(), ended: false };
        unpack::unpack(inlet, Path::new(&path), &options)
    };
    let mut done = match on_thread(work) {
        Ok(done) => done,
        Err(error) => return stream.fail(&error),
    };
    let feeding = async {
        loop {
            match stream.receive().await {
                Ok(Incoming::Data(data)) => {
                    let length = data.len();
                    if sender.send(Some(data)).await.is_err() {
                        return std::future::pending().await;
                    }
                    stream.consumed(length);
                }
                Ok(Incoming::End) => {
                    drop(sender.send(None).await);
                    return std::future::pending().await;
                }
                Err(Gone) => return,
            }
        }
    };
    let result = tokio::select! {
        result = &mut done => Some(result),
        () = feeding => None,
    };
    if let Some(result) = result {
        stream.answer(result.unwrap_or_else(|_| Err(cut_off()))).await;
    } else {
        // Given up: the thread finds its queue closed. The job lasts until it has.
        drop(sender);
        drop(done.await);
    }
}
