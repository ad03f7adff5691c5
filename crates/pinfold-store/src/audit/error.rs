//! What can go wrong with the audit log, and how it is told.

use std::{fmt, io, path::PathBuf};

use pinfold_types::{Error, ErrorCode};

use crate::StoreError;

/// The first thing that a verification found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tampered {
    /// The file, as it is named below `$PINFOLD_HOME`.
    pub segment: PathBuf,
    /// The first record that is not as it was written; 0 when it is about none.
    pub seq: u64,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Tampered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.segment.display())?;
        if self.seq > 0 {
            write!(f, ", record {}", self.seq)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A failed step of the audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file or directory could not be looked at, made, read or written.
    #[error("the audit log cannot {step} {path}", path = path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or directory is open to others.
    #[error(transparent)]
    Private(#[from] StoreError),
    /// The key is gone, and what it made is still there.
    #[error("the audit log's key {path} is missing, and a log is there", path = path.display())]
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The key is not one.
    #[error("the audit log's key {path} is not 32 bytes long", path = path.display())]
    KeyBad {
        /// The file.
        path: PathBuf,
    },
    /// Another writer has it.
    #[error("another process writes the audit log {path}", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The log is not as it was written.
    #[error("the audit log is not as it was written: {0}")]
    Tampered(Tampered),
    /// The last writing failed.
    #[error("the audit log cannot be written: {reason}")]
    Failing {
        /// Why, in the system's words.
        reason: String,
        /// What mends it.
        mend: String,
    },
    /// More waits to be written than may.
    #[error("{records} audit records wait to be written, which is the limit")]
    Full {
        /// How many wait.
        records: usize,
    },
    /// A value is outside its published range.
    #[error("{0}")]
    BadValue(String),
    /// The log was closed, or its writer ended.
    #[error("the audit log is closed")]
    Closed,
}

impl AuditError {
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    pub(crate) fn file<'a>(
        step: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::File { step, path: path.to_owned(), source }
    }
}

/// What to do about a failed write.
pub(crate) fn mend_of(err: &io::Error, dir: &std::path::Path) -> String {
    let dir = dir.display();
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!(
            "free space on the filesystem of {dir}; recording goes on by itself, and until then \
             everything that would have to be recorded is refused"
        ),
        _ => format!(
            "look at the filesystem of {dir}: dmesg, df, mount; recording goes on by itself when \
             it can be written again"
        ),
    }
}

impl From<AuditError> for Error {
    fn from(err: AuditError) -> Self {
        let message = err.to_string();
        let unavailable =
            |hint: String| Self::new(ErrorCode::Unavailable, message.clone()).hint(hint);
        match err {
            AuditError::File { ref source, ref path, .. } => {
                let dir = path.parent().unwrap_or(path);
                unavailable(mend_of(source, dir)).context(source)
            }
            AuditError::Private(err) => err.into(),
            AuditError::KeyMissing { .. } | AuditError::KeyBad { .. } => unavailable(
                "put the key back from a backup; to begin a new log instead, move the old one \
                 away, in $PINFOLD_HOME: mv audit audit.old; mv keys/audit.head keys/audit.head.old"
                    .into(),
            ),
            AuditError::Locked { path } => {
                unavailable(format!("find it with: fuser {}/*.jsonl", path.display()))
            }
            AuditError::Tampered(_) => unavailable(
                "find out who changed it; to begin a new log, keep the old one as evidence, \
                 in $PINFOLD_HOME: mv audit audit.evidence; mv keys/audit.head keys/audit.head.evidence; mv \
                 keys/audit.key keys/audit.key.evidence"
                    .into(),
            ),
            AuditError::Failing { mend, .. } => unavailable(mend),
            AuditError::Full { .. } => {
                let mut error = unavailable("ask again in a moment".into());
                error.retry_after_ms = Some(1000);
                error
            }
            AuditError::BadValue(_) => Self::new(ErrorCode::InvalidArgument, message),
            AuditError::Closed => {
                unavailable("the server is shutting down; ask again in a moment".into())
            }
        }
    }
}
