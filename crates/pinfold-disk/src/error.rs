//! What can go wrong with a disk, by step.

use std::{io, path::PathBuf};

use pinfold_types::{Error, ErrorCode};

/// Why a pool operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// An id is not a plain name.
    #[error("{0:?} is not a disk id: ids have 1 to 64 of A-Z a-z 0-9 _ -")]
    Id(String),
    /// More slots than a disk can have.
    #[error("{asked} overlay slots are more than the most of {most}")]
    Slots {
        /// How many were asked for.
        asked: usize,
        /// The limit.
        most: usize,
    },
    /// The id is taken.
    #[error("the pool already holds {0}")]
    Exists(String),
    /// Nothing has this id.
    #[error("the pool holds no disk {0}")]
    Missing(String),
    /// The pool has less free space than the configuration demands.
    #[error("the pool has {free} bytes free, and pool.min_free_bytes is {least}")]
    PoolFull {
        /// Free bytes.
        free: u64,
        /// `pool.min_free_bytes`.
        least: u64,
    },
    /// A limit was asked for that this pool cannot enforce.
    #[error("{field} cannot be enforced here: {why}")]
    CannotEnforce {
        /// The field of the request.
        field: &'static str,
        /// Why not, and the mend.
        why: String,
    },
    /// A limit is below what the disk holds by inheritance.
    #[error("disk_bytes of {asked} is less than the {held} bytes the disk comes with")]
    LimitBelowContents {
        /// The limit.
        asked: u64,
        /// What the disk holds.
        held: u64,
    },
    /// `mkfs.btrfs` is not installed.
    #[error("mkfs.btrfs is not installed")]
    NoMkfs,
    /// `mkfs.btrfs` failed.
    #[error("mkfs.btrfs could not format {path}: {said}")]
    Mkfs {
        /// The file.
        path: PathBuf,
        /// The end of what it printed.
        said: String,
    },
    /// The loop file holds something that is not a pool.
    #[error("{path} exists and is not a Pinfold pool: {what}")]
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Something else is mounted where the pool belongs.
    #[error("{path} is already the mount of {what}")]
    ForeignMount {
        /// The directory.
        path: PathBuf,
        /// What is mounted.
        what: String,
    },
    /// The configuration asks for something that this machine or user lacks.
    #[error("{what}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// How to mend it.
        mend: String,
    },
    /// The helper that acts with the workspace's ids failed.
    #[error("the helper for files of sub-ids failed: {0}")]
    Helper(String),
    /// A system call failed.
    #[error("could not {step} {object}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        object: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Names the step and object of a failed system call.
pub(crate) trait At<T> {
    fn at(self, step: &'static str, object: impl std::fmt::Display) -> Result<T, DiskError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, object: impl std::fmt::Display) -> Result<T, DiskError> {
        self.map_err(|error| DiskError::Io {
            step,
            object: object.to_string(),
            source: error.into(),
        })
    }
}

impl DiskError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Id(_) | Self::Slots { .. } | Self::LimitBelowContents { .. } => {
                ErrorCode::InvalidArgument
            }
            Self::Exists(_) => ErrorCode::AlreadyExists,
            Self::Missing(_) => ErrorCode::NotFound,
            Self::PoolFull { .. } => ErrorCode::DiskFull,
            Self::CannotEnforce { .. } => ErrorCode::CannotEnforce,
            Self::NoMkfs | Self::Unavailable { .. } | Self::ForeignMount { .. } => {
                ErrorCode::Unavailable
            }
            Self::ForeignFile { .. } => ErrorCode::Conflict,
            Self::Io { source, .. }
                if matches!(
                    source.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
                    Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)
                ) =>
            {
                ErrorCode::DiskFull
            }
            Self::Mkfs { .. } | Self::Helper(_) | Self::Io { .. } => ErrorCode::Internal,
        }
    }

    fn mend(&self) -> Option<String> {
        Some(match self {
            Self::NoMkfs => "apt-get install btrfs-progs".into(),
            Self::PoolFull { .. } => {
                "remove workspaces or snapshots (`pinfold ls`, `pinfold snapshot ls`)".into()
            }
            Self::CannotEnforce { .. } => {
                "leave the limit out, or give the pool a filesystem with quotas \
                 (`pinfold doctor` says how)"
                    .into()
            }
            Self::LimitBelowContents { .. } => "ask for a larger limit".into(),
            Self::ForeignFile { .. } => {
                "move the file away, or set pool.kind; Pinfold never formats a file that holds \
                 anything"
                    .into()
            }
            Self::ForeignMount { .. } => "unmount it, or set pool.path".into(),
            Self::Unavailable { mend, .. } => mend.clone(),
            Self::Helper(_) => "apt-get install uidmap util-linux, and see that /etc/subuid and \
                                /etc/subgid name you (`pinfold doctor`)"
                .into(),
            _ => return None,
        })
    }
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        let mut public = match error.code() {
            ErrorCode::Internal => Self::internal(&error),
            ErrorCode::DiskFull => Self::new(ErrorCode::DiskFull, error.to_string())
                .hint("raise disk_bytes, or remove what is not needed"),
            code => Self::new(code, error.to_string()),
        };
        if let Some(mend) = error.mend() {
            public = public.hint(mend);
        }
        match &error {
            DiskError::Io { source, .. } => public.context(format!("{error}: {source}")),
            _ => public,
        }
    }
}
