//! What goes into a pool and comes out of it.

use std::{fmt, path::PathBuf, sync::Weak};

use pinfold_types::{Error, limits::LimitKind};

use crate::{error::DiskError, pool::Inner};

/// Most overlay mounts of one workspace, and so most slots of one disk.
pub(crate) const MAX_SLOTS: usize = 64;

/// Limits of one disk. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Most bytes.
    pub bytes: Option<u64>,
    /// Most files and directories.
    pub inodes: Option<u64>,
}

impl DiskLimits {
    pub(crate) const fn get(&self, kind: LimitKind) -> Option<u64> {
        match kind {
            LimitKind::Disk => self.bytes,
            LimitKind::Inodes => self.inodes,
            _ => None,
        }
    }
}

/// Who may have a disk mounted while it is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// Nobody: its workspace is stopped.
    No,
    /// Its workspace, whose processes are held still: nothing writes.
    Still,
    /// Its workspace, which goes on: files may change and vanish meanwhile.
    Live,
}

/// What disks share below their own slots, never written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedLayer {
    /// Its directory. What lies below slot `n` of a disk is `upper/<n>` in it.
    pub path: PathBuf,
    /// How many slots it has.
    pub slots: usize,
}

/// One workspace's disk: `upper/<slot>` and `work/<slot>` below `path` for each overlay.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its id in the pool.
    pub id: String,
    /// Its directory.
    pub path: PathBuf,
    pub(crate) pool: Weak<Inner>,
}

impl Disk {
    /// Readies the disk for a start: makes the directories of slots 0 to `slots - 1` that are
    /// missing, and gives a disk that is full the few mebibytes that mounting it takes.
    pub fn prepare_slots(&self, slots: usize) -> Result<(), Error> {
        match self.pool.upgrade() {
            Some(pool) => Ok(pool.prepare_slots(&self.id, slots)?),
            None => Err(Error::internal("the pool of this disk was closed")),
        }
    }

    /// The sealed layers to be mounted below its slots, topmost first.
    pub fn sealed(&self) -> Result<Vec<SealedLayer>, Error> {
        match self.pool.upgrade() {
            Some(pool) => Ok(pool.sealed(&self.id)?),
            None => Err(Error::internal("the pool of this disk was closed")),
        }
    }
}

/// What an entry of a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskKind {
    /// A workspace's disk.
    Workspace,
    /// A snapshot.
    Snapshot,
    /// An empty disk made in advance.
    Warm,
    /// Half made or half removed.
    Partial,
}

/// One entry of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskEntry {
    /// Its id; of a partial one the id it was meant to have.
    pub id: String,
    /// What it is.
    pub kind: DiskKind,
}

/// How a pool keeps its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMethod {
    /// Subvolumes of a btrfs filesystem.
    Btrfs,
    /// Directories whose copies share their data.
    Reflink,
    /// Directories.
    Plain,
}

impl fmt::Display for PoolMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Btrfs => "btrfs",
            Self::Reflink => "reflink",
            Self::Plain => "plain",
        })
    }
}

/// A snapshot that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMade {
    /// How: `btrfs snapshot`, `sealed layer`, `reflink`, `copy`.
    pub method: String,
}

/// What one disk or snapshot uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes that count against its limit: what it wrote and what it came with. An upper bound
    /// under simple quotas, exact otherwise.
    pub referenced_bytes: u64,
    /// Bytes that only it accounts for. Under simple quotas those that it wrote itself.
    pub exclusive_bytes: Option<u64>,
    /// Files and directories, where known without a walk.
    pub inodes: Option<u64>,
}

/// Room in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpace {
    /// All of it.
    pub total_bytes: u64,
    /// Still free, not more than the filesystem below a loop file has.
    pub free_bytes: u64,
}

impl DiskLimits {
    /// Refuses limits that `enforceable` says cannot be enforced.
    pub(crate) fn check(
        &self,
        enforceable: impl Fn(LimitKind) -> Result<String, String>,
    ) -> Result<(), DiskError> {
        for kind in [LimitKind::Disk, LimitKind::Inodes] {
            if self.get(kind).is_some()
                && let Err(why) = enforceable(kind)
            {
                return Err(DiskError::CannotEnforce { field: kind.field(), why });
            }
        }
        Ok(())
    }
}
