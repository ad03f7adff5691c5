//! What can go wrong with a disk, by step.

use std::{
    io,
    path::{Path, PathBuf},
};

use pinfold_types::{ByteSize, Error, ErrorCode};
use rustix::io::Errno;

use crate::layout::Shelf;

/// The mend of a full pool.
pub(crate) const MAKE_ROOM: &str = "remove what is not needed (`pinfold ls`, `pinfold rm`, `pinfold snapshot \
                         rm`), or give a new pool more room: pool.loop_bytes";

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
    #[error(
        "the pool {} is full: {} of {} free, and pool.min_free_bytes keeps {}",
        path.display(), ByteSize(*free), ByteSize(*total), ByteSize(*least)
    )]
    PoolFull {
        /// The pool's directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// All bytes.
        total: u64,
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
    /// The list of a disk's layers cannot be made sense of.
    #[error("the list of layers {path} is damaged: {what}")]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
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
                if matches!(Errno::from_io_error(source), Some(Errno::NOSPC | Errno::DQUOT)) =>
            {
                ErrorCode::DiskFull
            }
            Self::Mkfs { .. } | Self::Helper(_) | Self::List { .. } | Self::Io { .. } => {
                ErrorCode::Internal
            }
        }
    }

    fn mend(&self) -> Option<String> {
        Some(match self {
            Self::NoMkfs => "apt-get install btrfs-progs".into(),
            Self::PoolFull { .. } => MAKE_ROOM.into(),
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
            ErrorCode::DiskFull => full(&error),
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

/// What ran out: the room of one disk, or that of all.
fn full(error: &DiskError) -> Error {
    let DiskError::Io { object, source, .. } = error else {
        return Error::new(ErrorCode::DiskFull, error.to_string());
    };
    if Errno::from_io_error(source) == Some(Errno::DQUOT) {
        return Error::new(ErrorCode::DiskFull, format!("the disk is at its limit: {error}"))
            .hint("raise disk_bytes (`pinfold set WORKSPACE --disk SIZE`), or remove files");
    }
    let place = Path::new(object);
    let pool = pool_of(place);
    let holds = pool.or_else(|| place.ancestors().find(|path| path.exists()));
    let space =
        holds.and_then(|path| rustix::fs::statvfs(path).ok()).map_or_else(String::new, |stat| {
            let size = |blocks: u64| ByteSize(blocks.saturating_mul(stat.f_frsize));
            format!(": {} of {} free", size(stat.f_bavail), size(stat.f_blocks))
        });
    let name = match pool {
        Some(path) => format!("the pool {}", path.display()),
        None => format!("the filesystem of {object}"),
    };
    Error::new(ErrorCode::DiskFull, format!("{name} is full{space}")).hint(MAKE_ROOM)
}

/// The directory above the shelf that this lies on.
fn pool_of(place: &Path) -> Option<&Path> {
    let shelf = |path: &&Path| {
        Shelf::ALL.iter().any(|shelf| path.file_name().is_some_and(|name| name == shelf.name()))
    };
    place.is_absolute().then(|| place.ancestors().find(shelf)?.parent()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(object: &str, errno: Errno) -> Error {
        DiskError::Io { step: "make the subvolume", object: object.into(), source: errno.into() }
            .into()
    }

    #[test]
    fn a_full_pool_is_told_from_a_disk_at_its_limit() {
        let full = io("/nowhere/pool/partial/3/ws_1", Errno::NOSPC);
        assert_eq!(full.code, ErrorCode::DiskFull);
        assert_eq!(full.message, "the pool /nowhere/pool is full");
        assert!(full.hint.as_deref().is_some_and(|hint| hint.contains("pinfold rm")), "{full:?}");
        let limit = io("/nowhere/pool/disks/ws_1", Errno::DQUOT);
        assert_eq!(limit.code, ErrorCode::DiskFull);
        assert!(limit.message.starts_with("the disk is at its limit"), "{limit:?}");
        assert!(limit.hint.as_deref().is_some_and(|hint| hint.contains("--disk")), "{limit:?}");
    }

    #[test]
    fn a_full_pool_says_how_much_is_left() {
        let here = tempfile::tempdir().expect("a directory");
        let object = here.path().join("disks/ws_1");
        std::fs::create_dir_all(&object).expect("directories");
        let full = io(&object.display().to_string(), Errno::NOSPC);
        assert!(full.message.contains(" free"), "{full:?}");
    }
}
