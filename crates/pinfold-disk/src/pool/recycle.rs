//! Removed disks that become empty ones again, where that costs less than to remove one and make
//! another.
//!
//! A disk is emptied in the trash, where a crash leaves it to be removed. It is put on the shelf of
//! warm disks when its emptying is on the disk and the filesystem says that nothing is charged to
//! it any more but what a fresh disk has: then no file of the former tenant can be reached from
//! it, come back after a power loss, or count against the next.

use super::Inner;
use crate::{
    error::DiskError,
    layout::{Place, Shelf},
    types::DiskLimits,
};

/// Empty disks that are kept beyond those wanted in advance.
const SPARE: usize = 12;
/// Looks at a disk that is charged with more than an empty one's share before it is given up: what
/// had its files open may need a moment to be gone.
const MAX_LOOKS: u32 = 3;

/// A disk that was emptied and is in the trash still.
#[derive(Debug)]
pub(crate) struct Emptied {
    pub(crate) name: String,
    limits: DiskLimits,
    slots: usize,
    /// The transaction that it was emptied in.
    since: u64,
    looks: u32,
}

impl Inner {
    /// Notes that something may hold on to what `id` wrote.
    pub(super) fn shared(&self, id: &str) {
        self.sources().insert(id.to_owned());
    }

    /// Whether disk `id`, which is being removed, shares nothing as far as is known.
    pub(super) fn forget_source(&self, id: &str) -> bool {
        !self.sources().remove(id)
    }

    /// How many empty disks are on their way to the shelf.
    pub(crate) fn set_coming(&self, count: usize) {
        self.warm().coming = count;
    }

    /// Makes an empty disk of one in the trash. `None`: it is to be removed instead.
    pub(crate) fn recycle(&self, name: &str) -> Option<Emptied> {
        let (limits, slots) = {
            let warm = self.warm();
            if warm.wanted == 0 || warm.ready.len() + warm.coming >= warm.wanted + SPARE {
                return None;
            }
            (warm.limits, warm.slots)
        };
        let _making = self.making();
        let place = self.layout.at(Shelf::Trash, name);
        match self.backend.recycle(&place, &limits, slots) {
            Ok(true) => {
                let since = self.backend.transaction();
                Some(Emptied { name: name.to_owned(), limits, slots, since, looks: 0 })
            }
            Ok(false) => None,
            Err(error) => {
                tracing::debug!(%error, name, "a disk that cannot be emptied is removed");
                None
            }
        }
    }

    /// Puts on the shelf those of `emptied` that are as fresh ones, and takes out those that never
    /// will be, which are to be removed. `now`, or when the shelf runs low: without waiting for a
    /// commit that somebody else needs.
    pub(crate) fn shelve(&self, emptied: &mut Vec<Emptied>, now: bool) -> Vec<String> {
        let _making = self.making();
        let low = {
            let warm = self.warm();
            warm.ready.len() < warm.wanted.div_ceil(2)
        };
        let commit = now || low;
        if commit && let Err(error) = self.backend.commit() {
            tracing::warn!(%error, "emptied disks stay in the trash");
            return emptied.drain(..).map(|disk| disk.name).collect();
        }
        let transaction = self.backend.transaction();
        let mut given_up = Vec::new();
        emptied.retain_mut(|disk| {
            if !commit && transaction <= disk.since {
                return true;
            }
            let place = self.layout.at(Shelf::Trash, disk.name.as_str());
            match self.backend.is_fresh(&place) {
                Ok(true) => match self.stock(&place, disk.limits, disk.slots) {
                    Ok(()) => return false,
                    Err(error) => tracing::debug!(%error, disk.name, "not put on the shelf"),
                },
                Ok(false) => {
                    disk.since = transaction;
                    disk.looks += 1;
                    if disk.looks < MAX_LOOKS {
                        return true;
                    }
                }
                Err(error) => tracing::debug!(%error, disk.name, "not recycled"),
            }
            given_up.push(std::mem::take(&mut disk.name));
            false
        });
        given_up
    }

    fn stock(&self, place: &Place<'_>, limits: DiskLimits, slots: usize) -> Result<(), DiskError> {
        let name = self.warm_name();
        place.move_to(&self.layout.at(Shelf::Warm, name.as_str()))?;
        self.warm().ready.push(super::inner::WarmDisk { name, limits, slots });
        Ok(())
    }

    /// Whether removals can wait for a quiet moment: those that only hand a disk to the kernel, as
    /// long as there is room.
    pub(crate) fn may_put_off_removals(&self) -> bool {
        self.backend.destroys_atomically()
            && self.space().is_ok_and(|space| space.free_bytes > space.total_bytes / 8)
    }
}
