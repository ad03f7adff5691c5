//! The audit log: JSON lines in files, chained by keyed hashes, on the disk before the answer.
//!
//! One thread of its own writes. It takes everything that waits, writes it with one call and one
//! `fdatasync`, and then answers all who wait. [`AuditLog::append`] never blocks; when the log
//! cannot be written, or more waits than may, it is refused, and so has to be what was to be
//! recorded. See `docs/security/audit.md` for the format and for what a verification finds.
//!
//! ```no_run
//! # use std::path::Path;
//! use pinfold_store::audit::{AuditEvent, AuditKey, AuditLog, AuditOptions, Phase};
//! # async fn example() -> pinfold_types::Result<()> {
//! let key = AuditKey::open(Path::new("/var/lib/pinfold/keys"))?;
//! let log = AuditLog::open(Path::new("/var/lib/pinfold/audit"), key, AuditOptions::default())?;
//! let event = AuditEvent::new(jiff::Timestamp::now(), Phase::Begin, "workspace.create");
//! let seq = log.append(event).durable().await?;
//! # let _ = seq;
//! log.close().await;
//! # Ok(())
//! # }
//! ```

mod chain;
mod error;
mod event;
mod examine;
mod file;
pub mod fuzzing;
mod header;
mod key;
mod queue;
mod read;
mod segment;
mod verify;
mod walk;
mod writer;

use std::{
    fmt,
    io::Write,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use pinfold_types::{Error, Result};
use tokio::sync::{broadcast, oneshot};

pub use self::{
    chain::ChainHash,
    error::{AuditError, Tampered},
    event::{AuditEvent, AuditRecord, MAX_DETAIL_BYTES, MAX_MADE_BYTES, MAX_RECORD_BYTES, Phase},
    key::{AUDIT_KEY_BYTES, AuditKey},
    queue::{MAX_WAITING_BYTES, MAX_WAITING_RECORDS},
    read::{MAX_RECORDS_PAGE, export, read, tail},
    verify::{Verified, VerifyError, verify},
};
use self::{
    examine::{Depth, Finding},
    file::LogFile,
    queue::{Job, Queue},
    writer::Writer,
};

/// Records that a subscriber may be behind before it is told that it missed some.
pub const MAX_BEHIND: usize = 1024;
/// Fewest bytes after which a segment can be asked to end.
pub const MIN_ROTATE_BYTES: u64 = 1024;
/// Most bytes after which a segment can be asked to end.
pub const MAX_ROTATE_BYTES: u64 = 1 << 30;

/// How the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// A segment that has grown to this size gets a successor. It may be larger by one batch,
    /// which is at most a mebibyte and one record. From [`MIN_ROTATE_BYTES`] to
    /// [`MAX_ROTATE_BYTES`].
    pub rotate_bytes: u64,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { rotate_bytes: 64 << 20 }
    }
}

/// The audit log of one home. Cheap to clone; the last clone's end closes it.
#[derive(Clone)]
pub struct AuditLog {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    dir: PathBuf,
    key: AuditKey,
    readers: broadcast::Sender<Arc<AuditRecord>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.close());
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

/// A record on its way to the disk. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "what was recorded is on the disk only when durable() says so"]
pub struct Pending {
    state: Result<oneshot::Receiver<Result<u64>>>,
}

impl Pending {
    /// Waits until the record is on the disk, and says its number.
    ///
    /// `unavailable` when it could not be written: then it is not in the log, and never will be.
    pub async fn durable(self) -> Result<u64> {
        self.state?.await.map_err(|_| Error::from(AuditError::Closed))?
    }
}

impl AuditLog {
    /// Opens the log in the directory `dir`, or begins it, and makes it whole: what a crash left
    /// of a batch that was never acknowledged is cut off, and that is recorded.
    ///
    /// The directory is 0700. Its headers, its end and the head are checked here, and the whole
    /// by [`verify`]. A log that was tampered with is not opened, and neither is one that another
    /// process writes. Blocks on the disk.
    pub fn open(dir: &Path, key: AuditKey, options: AuditOptions) -> Result<Self> {
        Ok(Self::open_inner(dir, key, options)?)
    }

    fn open_inner(dir: &Path, key: AuditKey, options: AuditOptions) -> Result<Self, AuditError> {
        let range = MIN_ROTATE_BYTES..=MAX_ROTATE_BYTES;
        if !range.contains(&options.rotate_bytes) {
            return Err(AuditError::BadValue(format!(
                "rotate_bytes of {} is outside {MIN_ROTATE_BYTES} to {MAX_ROTATE_BYTES}",
                options.rotate_bytes
            )));
        }
        key::private_directory(dir)?;
        let examine = || {
            examine::examine(dir, &key, Depth::Ends).map_err(|finding| match finding {
                Finding::Tampered(found) => AuditError::Tampered(found),
                Finding::Failed(err) => err,
            })
        };
        // A head that is missing is better explained by the examination than by the lock.
        let head_file = match file::lock_head(dir, &key) {
            Err(err @ AuditError::File { .. }) => return Err(examine().err().unwrap_or(err)),
            other => other?,
        };
        let found = examine()?;
        for path in found.segments.iter().map(|segment| &segment.path).chain([&key.head_path()]) {
            let facts =
                std::fs::symlink_metadata(path).map_err(AuditError::file("look at", path))?;
            crate::file::check_private(path, &facts, false)?;
        }
        let note = if found.segments.is_empty() {
            Some(AuditEvent::of_the_log("audit.begin", "the log begins"))
        } else if found.unfinished_bytes > 0 {
            let event = AuditEvent::of_the_log("audit.mend", "a crash left an unfinished end")
                .with("bytes_cut", found.unfinished_bytes.to_string())
                .with("after_record", found.end.seq.to_string());
            Some(event)
        } else {
            None
        };
        let log = LogFile::open(dir, &key, options.rotate_bytes, found, head_file)?;
        let queue = Arc::new(Queue::default());
        queue.set_durable(log.point().seq);
        let readers = broadcast::Sender::new(MAX_BEHIND);
        let writer = Writer {
            queue: Arc::clone(&queue),
            key: key.clone(),
            dir: dir.to_owned(),
            log,
            readers: readers.clone(),
        };
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run())
            .map_err(AuditError::file("start a thread for", dir))?;
        let log = Self { inner: Arc::new(Inner { queue, dir: dir.to_owned(), key, readers }) };
        if let Some(event) = note {
            // Before anything else in the queue: nobody else has the log yet.
            let _ = log.append(event);
        }
        Ok(log)
    }

    /// Queues an event, in order with all others. Never blocks.
    ///
    /// When the log cannot be written, or [`MAX_WAITING_RECORDS`] or [`MAX_WAITING_BYTES`] wait
    /// already, the [`Pending`] says so, and how many were refused is recorded later.
    pub fn append(&self, event: AuditEvent) -> Pending {
        let (reply, done) = oneshot::channel();
        let state = match self.inner.queue.push(Job::record(event, Some(reply))) {
            Ok(()) => Ok(done),
            Err(err) => Err(err.into()),
        };
        Pending { state }
    }

    /// Whether events are being taken. Once a write has failed this is `unavailable`, with the
    /// mend, until writing works again, which is tried several times a second.
    pub fn healthy(&self) -> Result<()> {
        Ok(self.inner.queue.health()?)
    }

    /// Number of the last record that is on the disk.
    pub fn last(&self) -> u64 {
        self.inner.queue.durable()
    }

    /// Writes what waits, closes the files in order, and ends the thread. Later calls fail.
    pub async fn close(&self) {
        if let Some(done) = self.inner.queue.close() {
            // An error means that the writer has ended, which is what is waited for.
            let _ = done.await;
        }
    }

    /// Every record from now on, as soon as it is on the disk. Who falls more than
    /// [`MAX_BEHIND`] behind is told how many were missed, and can [`AuditLog::read`] them.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<AuditRecord>> {
        self.inner.readers.subscribe()
    }

    /// Records from number `from_seq` on, as in [`read`], that are on the disk. Blocks on it.
    pub fn read(&self, from_seq: u64, limit: usize) -> Result<Vec<AuditRecord>> {
        Ok(read::read_until(&self.inner.dir, from_seq, self.last(), limit)?)
    }

    /// The last `count` records, as in [`tail`]. Blocks on the disk.
    pub fn tail(&self, count: usize) -> Result<Vec<AuditRecord>> {
        let count = count.min(MAX_RECORDS_PAGE);
        self.read(self.last().saturating_sub(count as u64) + 1, count)
    }

    /// Raw lines of a range of records, as in [`export`]. Blocks on the disk and the writer.
    pub fn export(&self, range: RangeInclusive<u64>, to: &mut dyn Write) -> Result<u64> {
        let last = (*range.end()).min(self.last());
        export(&self.inner.dir, *range.start()..=last, to)
    }

    /// Verifies what there is, as in [`verify`]. Blocks on the disk.
    pub fn verify(&self) -> Result<Verified, VerifyError> {
        verify(&self.inner.dir, &self.inner.key)
    }

    /// Removes the oldest segments until `keep_segments` are left, at least one, and records
    /// that. Says how many were removed.
    pub async fn prune(&self, keep_segments: usize) -> Result<usize> {
        if keep_segments == 0 {
            let err = AuditError::BadValue("keep_segments of 0 is under 1, the least".into());
            return Err(err.into());
        }
        let (reply, done) = oneshot::channel();
        let job = Job::Prune { keep: keep_segments, reply };
        self.inner.queue.push(job)?;
        done.await.map_err(|_| Error::from(AuditError::Closed))?
    }
}
