//! Emptying a subvolume so that it is as one just made.
//!
//! To drop a subvolume costs the kernel a commit in its cleaner (`btrfs_qgroup_cleanup_dropped_
//! subvolume`), whatever it held; to unlink a few files costs none, and one commit serves all that
//! were emptied before it.

use std::os::fd::AsFd;

use pinfold_sys::btrfs::{self, QuotaMode};

use super::{Btrfs, kernel_limit};
use crate::{
    error::{At, DiskError},
    layout::Place,
    tree,
    types::DiskLimits,
};

/// Most entries that are removed one by one.
const MAX_ENTRIES: usize = 2000;
/// Most bytes: a file's data has extents, and each is work.
const MAX_BYTES: u64 = 64 << 20;
/// Most slots whose directories surely fit into the one block of an empty subvolume.
const MAX_SLOTS: usize = 16;

impl Btrfs {
    /// Empties the subvolume at `place`. Everything its workspace could reach lies below `upper`
    /// and `work`, which are made anew, with new inodes; the subvolume's own root it never saw.
    pub(super) fn empty(
        &self,
        place: &Place<'_>,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<bool, DiskError> {
        // Only simple quotas charge a subvolume with all that it wrote, wherever that lives on.
        if self.quota != Some(QuotaMode::Simple) || slots > MAX_SLOTS {
            return Ok(false);
        }
        let (disk, path) = (place.open()?, place.path());
        let stat = rustix::fs::fstat(&disk).at("look at", path.display())?;
        if stat.st_ino != btrfs::SUBVOLUME_INODE {
            return Ok(false);
        }
        match self.charge(disk.as_fd(), &path)? {
            Some(charge) if charge.total() <= MAX_BYTES => {
                // First: from a disk that is full nothing could be removed.
                self.apply(charge.id, kernel_limit(limits, 0)?, &path)?;
            }
            _ => return Ok(false),
        }
        if !tree::remove::contents(disk, MAX_ENTRIES).at("empty", path.display())? {
            return Ok(false);
        }
        place.prepare_slots(slots)?;
        Ok(true)
    }
}
