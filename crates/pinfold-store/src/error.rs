//! What can go wrong with the state database, and how it is told.

use std::path::PathBuf;

use pinfold_types::{Error, ErrorCode};

/// A failed step of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory could not be looked at, made or renamed.
    #[error("cannot {step} {path}", path = path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file or directory is open to others, or belongs to somebody else.
    #[error("{path} {problem}", path = path.display())]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The command that mends it.
        mend: String,
    },
    /// The main file is not there, but its log is.
    #[error("{path} is missing although its write-ahead log is there", path = path.display())]
    MainFileMissing {
        /// The main file.
        path: PathBuf,
    },
    /// The file is not a database, is not ours, or is damaged.
    #[error("{path} is damaged: {problem}", path = path.display())]
    Damaged {
        /// The main file.
        path: PathBuf,
        /// What the check found.
        problem: String,
    },
    /// A newer version wrote the file.
    #[error(
        "{path} was written by a newer version: its schema is {found}, this program knows {known}",
        path = path.display()
    )]
    Newer {
        /// The main file.
        path: PathBuf,
        /// Version of its schema.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// A migration did not apply.
    #[error("the schema of {path} cannot be brought up to date", path = path.display())]
    Migrate {
        /// The main file.
        path: PathBuf,
        /// Why not.
        source: sqlx::migrate::MigrateError,
    },
    /// A workspace of that name exists.
    #[error("a workspace named {name:?} exists already")]
    WorkspaceNameTaken {
        /// The name.
        name: String,
    },
    /// The workspace has a snapshot of that name.
    #[error("the workspace has a snapshot named {name:?} already")]
    SnapshotNameTaken {
        /// The name.
        name: String,
    },
    /// Two rows claim what only one may have: an id or a range of uids.
    #[error("{what} is taken")]
    Taken {
        /// What.
        what: String,
        /// The database's words.
        source: sqlx::Error,
    },
    /// The row to change is not there.
    #[error("no {kind} {id} is recorded")]
    NoRow {
        /// `workspace` or `snapshot`.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// A stored value does not parse.
    #[error("column {column} of {row} does not parse")]
    BadColumn {
        /// The column.
        column: &'static str,
        /// Id of the row.
        row: String,
        /// What the parser said.
        problem: String,
    },
    /// A value cannot be stored.
    #[error("{field} does not fit the database")]
    BadValue {
        /// Which.
        field: &'static str,
    },
    /// A statement failed.
    #[error("the state database failed to {step}")]
    Sql {
        /// Which statement.
        step: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// The store was closed, or its writer ended.
    #[error("the state database is closed")]
    Closed,
    /// More waits to be written than may.
    #[error("{jobs} changes of the state wait to be written, which is as many as may")]
    Full {
        /// How many.
        jobs: usize,
    },
}

/// SQLite's primary result code (<https://www.sqlite.org/rescode.html>), if that is what failed.
pub(crate) fn primary_code(err: &sqlx::Error) -> Option<u32> {
    let code = err.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|extended| extended & 0xff)
}

const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const CONSTRAINT: u32 = 19;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const NOT_A_DATABASE: u32 = 26;
const IO: u32 = 10;
const READ_ONLY: u32 = 8;

/// Whether the statement alone failed, and the transaction around it stands.
pub(crate) fn is_constraint(err: &sqlx::Error) -> bool {
    primary_code(err) == Some(CONSTRAINT)
}

/// Whether SQLite says that the file is not sound.
pub(crate) fn is_damage(err: &sqlx::Error) -> bool {
    matches!(primary_code(err), Some(CORRUPT | NOT_A_DATABASE))
}

fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

const DAMAGE_MEND: &str = "stop the server, keep a copy of the file, and put a backup in its \
    place, or let `sqlite3 state.db .recover` write what can be read into a new one; the disks of \
    workspaces are not touched";

impl From<StoreError> for Error {
    fn from(err: StoreError) -> Self {
        let context = chain(&err);
        let message = err.to_string();
        match err {
            StoreError::File { .. } => Self::new(ErrorCode::Unavailable, message)
                .hint("see that the directory exists, is yours, and that its disk is not full"),
            StoreError::Permissions { mend, .. } => {
                Self::new(ErrorCode::Unavailable, message).hint(mend)
            }
            StoreError::MainFileMissing { .. } => Self::new(ErrorCode::Unavailable, message).hint(
                "put the file back beside its -wal and -shm files; to start empty instead, move \
                 those away",
            ),
            StoreError::Damaged { .. } => {
                Self::new(ErrorCode::Unavailable, message).hint(DAMAGE_MEND)
            }
            StoreError::Newer { .. } => Self::new(ErrorCode::Unavailable, message)
                .hint("run the newer version, or restore the backup made before the upgrade"),
            StoreError::Migrate { .. } => Self::new(ErrorCode::Unavailable, message)
                .hint("nothing was changed; restore a backup or run the version that wrote it"),
            StoreError::WorkspaceNameTaken { .. } => Self::new(ErrorCode::AlreadyExists, message)
                .hint("choose another name, or remove the old one: pinfold rm"),
            StoreError::SnapshotNameTaken { .. } => Self::new(ErrorCode::AlreadyExists, message)
                .hint("choose another name, or remove the old one: pinfold snapshot rm"),
            StoreError::NoRow { kind, ref id } => Self::not_found(kind, id),
            StoreError::Sql { ref source, .. } => match primary_code(source) {
                Some(FULL) => {
                    Self::new(ErrorCode::DiskFull, "the disk of the state database is full")
                        .hint("free space on the filesystem of $PINFOLD_HOME; nothing was changed")
                }
                Some(CORRUPT | NOT_A_DATABASE) => {
                    Self::new(ErrorCode::Unavailable, "the state database is damaged")
                        .hint(DAMAGE_MEND)
                }
                Some(BUSY | LOCKED) => {
                    Self::new(ErrorCode::Unavailable, "another program holds the state database")
                        .hint("find it with: fuser $PINFOLD_HOME/state.db")
                }
                Some(IO | READ_ONLY) => {
                    Self::new(ErrorCode::Unavailable, "the state database cannot be written")
                        .hint("look at the filesystem of $PINFOLD_HOME: dmesg, df, mount")
                }
                _ => return Self::internal(context),
            },
            StoreError::Taken { .. }
            | StoreError::BadColumn { .. }
            | StoreError::BadValue { .. } => return Self::internal(context),
            StoreError::Closed => Self::new(ErrorCode::Unavailable, message)
                .hint("the server is shutting down; ask again in a moment"),
            StoreError::Full { .. } => {
                let mut error = Self::new(ErrorCode::Unavailable, message)
                    .hint("the disk does not keep up; ask again in a moment");
                error.retry_after_ms = Some(1000);
                error
            }
        }
        .context(context)
    }
}
