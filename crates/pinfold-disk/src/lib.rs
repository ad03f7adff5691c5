//! The disks of workspaces: making, limiting, snapshotting, cloning, restoring and removing them.
//!
//! A [`Pool`] is a directory that holds disks by one of three methods:
//!
//! | method | made on | snapshot and clone | limits |
//! |---|---|---|---|
//! | btrfs | a loop file that [`Pool::open`] makes, or a mounted btrfs | one ioctl, whatever the size | bytes, by quota groups |
//! | reflink | XFS, or btrfs without root | of what is stopped: sealed layers, whatever the size; else per file, data shared | bytes and inodes where project quotas are on |
//! | plain | anything | as above; else copies | as above |
//!
//! What is promised of a crash: after `kill -9` at any instant the next [`Pool::open`] and
//! [`Pool::reclaim`] find every disk either whole under its id, or under a name that says it is
//! half made or half removed. A snapshot, and a btrfs clone, that was acknowledged also survives a
//! power loss; an empty disk survives one from the next commit (at most 30 s) or fsync in it.
//!
//! Refused here: ids that are not plain names, a limit that cannot be enforced, formatting a file
//! that holds anything.
//!
//! ```no_run
//! use pinfold_disk::{DiskLimits, Mounted, Pool};
//! use pinfold_types::{Mode, config::PoolConfig};
//! # fn main() -> pinfold_types::Result<()> {
//! let pool = Pool::open(&PoolConfig::default(), "/var/lib/pinfold".as_ref(), Mode::Root)?;
//! let limits = DiskLimits { bytes: Some(10 << 30), inodes: None };
//! let disk = pool.create("ws_1", &limits, 1)?;
//! assert!(disk.path.join("upper/0").is_dir());
//! pool.snapshot("ws_1", "snap_1", Mounted::No)?;
//! pool.clone_to("snap_1", "ws_2", &limits, 1)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod backend;
mod btrfs;
mod doctor;
mod error;
mod id;
mod janitor;
mod layout;
mod mounts;
mod open;
mod pool;
mod reclaim;
mod tree;
mod types;

pub use error::DiskError;
pub use pool::Pool;
pub use types::{
    Disk, DiskEntry, DiskKind, DiskLimits, DiskUsage, Mounted, PoolMethod, PoolSpace, SealedLayer,
    SnapshotMade,
};
