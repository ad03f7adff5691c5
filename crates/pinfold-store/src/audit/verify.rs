//! Verification: the whole log, or the first thing that is wrong with it.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use pinfold_types::{Error, ErrorCode};

use super::{
    chain::ChainHash,
    error::{AuditError, Tampered},
    examine::{Depth, Examined, Finding, examine},
    header::HEADER_BYTES,
    key::AuditKey,
    segment,
};

/// How often a log that moves is read again.
const MAX_READINGS: usize = 16;

/// What a sound log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Records that were checked.
    pub records: u64,
    /// Files that they are in.
    pub segments: usize,
    /// Number of the oldest record that is kept. One more than `last` when there is none.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
    /// Its hash. Whoever writes it down elsewhere can later tell whether the log was set back.
    pub head_hash: ChainHash,
    /// Bytes behind the last record that are none: a crash left them, or a writer is at it.
    pub unfinished_bytes: u64,
}

impl Verified {
    fn new(found: &Examined) -> Self {
        let first = found.segments.first().map_or(found.end.seq + 1, |oldest| oldest.first);
        Self {
            records: found.end.seq + 1 - first,
            segments: found.segments.len(),
            first,
            last: found.end.seq,
            head_hash: found.end.hash,
            unfinished_bytes: found.unfinished_bytes,
        }
    }
}

/// Why a log is not verified.
#[derive(Debug)]
pub enum VerifyError {
    /// It is not as it was written.
    Tampered(Tampered),
    /// It cannot be read.
    Failed(Error),
}

impl From<VerifyError> for Error {
    fn from(err: VerifyError) -> Self {
        match err {
            VerifyError::Tampered(found) => {
                Self::new(ErrorCode::Unprocessable, AuditError::Tampered(found).to_string())
                    .hint("keep a copy of the audit directory, and find out who changed it")
            }
            VerifyError::Failed(err) => err,
        }
    }
}

/// Checks every record of every segment, that nothing is missing at either end or between, and
/// that nothing was added. A server may write meanwhile. Blocks on the disk.
pub fn verify(dir: &Path, key: &AuditKey) -> Result<Verified, VerifyError> {
    let mut before = looks(dir, key);
    let mut suspect = None;
    for _ in 0..MAX_READINGS {
        let finding = match examine(dir, key, Depth::Whole) {
            Ok(found) => return Ok(Verified::new(&found)),
            Err(finding) => finding,
        };
        // A rotation or a pruning in the middle of the reading is no tampering: what counts is
        // found while nothing moves, or found twice.
        let after = looks(dir, key);
        let moved = before != after;
        before = after;
        match finding {
            Finding::Failed(err) if !moved => return Err(VerifyError::Failed(err.into())),
            Finding::Tampered(found) if !moved || suspect.as_ref() == Some(&found) => {
                return Err(VerifyError::Tampered(found));
            }
            Finding::Tampered(found) => suspect = Some(found),
            Finding::Failed(_) => {}
        }
    }
    let err = Error::new(ErrorCode::Conflict, "the audit log changed too fast to be verified");
    Err(VerifyError::Failed(err.hint("try again when less is going on")))
}

/// What changes whenever a writer writes.
#[derive(PartialEq, Eq)]
struct Looks {
    segments: Vec<segment::Segment>,
    /// Of the last segment.
    bytes: u64,
    header: Vec<u8>,
    head: Vec<u8>,
}

fn looks(dir: &Path, key: &AuditKey) -> Option<Looks> {
    let segments = segment::list(dir).ok()?;
    let last = File::open(&segments.last()?.path).ok()?;
    let mut header = vec![0; HEADER_BYTES];
    last.read_exact_at(&mut header, 0).ok()?;
    let head = std::fs::read(key.head_path()).ok()?;
    Some(Looks { bytes: last.metadata().ok()?.len(), segments, header, head })
}
