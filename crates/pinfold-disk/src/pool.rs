//! A pool of disks: names, shelves and the order of steps. How a disk is made is the backend's.

mod backup;
mod inner;
mod recycle;

use std::{collections::HashSet, sync::Arc};

use pinfold_types::{
    Error, Mode, api::Finding, api::RecoveryAction, config::PoolConfig, limits::LimitKind,
};

use crate::{
    backend::Copying,
    doctor,
    error::{At, DiskError},
    id,
    janitor::{Janitor, Job},
    layout::{Place, Shelf},
    open, reclaim,
    types::{
        Disk, DiskEntry, DiskLimits, DiskUsage, MAX_SLOTS, Mounted, PoolMethod, PoolSpace,
        SnapshotMade,
    },
};

pub(crate) use inner::Inner;
pub(crate) use recycle::Emptied;

/// Most threads that make the clones of one [`Pool::clone_many`]: snapshots that are asked for at
/// the same time share one commit.
const CLONE_THREADS: usize = crate::layout::LANES as usize;

/// The disks of one `$PINFOLD_HOME`. Calls block; different disks may be worked on at once, one
/// disk by one caller at a time.
#[derive(Debug)]
pub struct Pool {
    // Dropped first: the thread ends before the descriptors it uses.
    janitor: Janitor,
    inner: Arc<Inner>,
}

impl Pool {
    /// Opens the pool that `config` describes, making what is missing: the file, its filesystem,
    /// mount, quotas and directories. Doing it again changes nothing; whatever `kill -9` left
    /// half made is finished or made anew.
    pub fn open(config: &PoolConfig, home: &std::path::Path, mode: Mode) -> Result<Self, Error> {
        let (layout, backend) = open::open(config, home, mode)?;
        let inner = Arc::new(Inner::new(layout, backend, config.min_free_bytes)?);
        let janitor = Janitor::start(&inner).at("start", "the disk thread")?;
        Ok(Self { janitor, inner })
    }

    /// What a pool would be and cost here, for `pinfold doctor`: opens it and measures.
    pub fn findings(config: &PoolConfig, home: &std::path::Path, mode: Mode) -> Vec<Finding> {
        doctor::findings(config, home, mode)
    }

    /// What this pool is and costs, measured by a snapshot of a scratch disk.
    pub fn measure(&self) -> Vec<Finding> {
        doctor::measure(self)
    }

    /// `pool.min_free_bytes`: with less free, nothing is made.
    pub(crate) fn min_free_bytes(&self) -> u64 {
        self.inner.min_free_bytes
    }

    /// How disks are kept.
    pub fn method(&self) -> PoolMethod {
        self.inner.backend.method()
    }

    /// One sentence on what the pool stands on.
    pub fn describe(&self) -> String {
        self.inner.backend.describe()
    }

    /// By what `kind` is enforced here, or why it cannot be, with the mend.
    pub fn enforceable(&self, kind: LimitKind) -> Result<String, String> {
        self.inner.backend.enforceable(kind)
    }

    /// Makes an empty disk. A warm one is taken when there is one.
    pub fn create(&self, id: &str, limits: &DiskLimits, slots: usize) -> Result<Disk, Error> {
        let disk = self.inner.create(id, limits, slots)?;
        if self.inner.wants_warm() {
            // No room in the queue means that a refill is waiting there.
            let _ = self.janitor.give(Job::Warm);
        }
        Ok(disk)
    }

    /// Keeps `count` empty disks with these limits and slots ready, made in the background.
    pub fn warm(&self, count: usize, limits: &DiskLimits, slots: usize) -> Result<(), Error> {
        limits.check(|kind| self.enforceable(kind))?;
        if slots > MAX_SLOTS {
            return Err(DiskError::Slots { asked: slots, most: MAX_SLOTS }.into());
        }
        self.inner.want_warm(count, limits, slots);
        let _ = self.janitor.give(Job::Warm);
        Ok(())
    }

    /// How many warm disks are ready.
    pub fn warm_ready(&self) -> usize {
        self.inner.warm_ready()
    }

    /// The disk with this id.
    pub fn open_disk(&self, id: &str) -> Result<Disk, Error> {
        id::check(id)?;
        let place = self.inner.layout.at(Shelf::Disks, id);
        place.open()?;
        Ok(self.inner.disk_at(&place, id))
    }

    /// Changes the limits of a disk in use. A limit below what it already wrote stops further
    /// writes; one below what it came with is refused.
    pub fn set_limits(&self, id: &str, limits: &DiskLimits) -> Result<(), Error> {
        id::check(id)?;
        limits.check(|kind| self.enforceable(kind))?;
        let place = self.inner.layout.at(Shelf::Disks, id);
        Ok(self.inner.backend.set_limits(&place, limits)?)
    }

    /// The limits a disk has.
    pub fn limits(&self, id: &str) -> Result<DiskLimits, Error> {
        id::check(id)?;
        Ok(self.inner.backend.limits(&self.inner.layout.at(Shelf::Disks, id))?)
    }

    /// Removes a disk or snapshot, whole or half made. What is not there is removed already.
    ///
    /// Its name is free when this returns; the space follows in the background.
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        id::check(id)?;
        for shelf in [Shelf::Disks, Shelf::Snapshots] {
            self.discard(&self.inner.layout.at(shelf, id), id)?;
        }
        if !self.inner.has_leftovers() {
            return Ok(());
        }
        for place in self.inner.layout.places(Shelf::Partial)? {
            if reclaim::meant(&place.name) == id {
                self.discard(&place, id)?;
            }
        }
        Ok(())
    }

    /// Everything in the pool.
    pub fn list(&self) -> Result<Vec<DiskEntry>, Error> {
        Ok(reclaim::list(&self.inner.layout)?)
    }

    /// Makes an immutable copy of a disk, which `mounted` says who may have mounted. A disk that
    /// nobody has mounted is not copied where disks are directories: its slots are sealed, and it
    /// has new ones with the next [`Disk::prepare_slots`].
    ///
    /// It is on the disk when this returns, with all that was written before.
    pub fn snapshot(
        &self,
        disk_id: &str,
        snapshot_id: &str,
        mounted: Mounted,
    ) -> Result<SnapshotMade, Error> {
        id::check(disk_id)?;
        id::check(snapshot_id)?;
        self.inner.check_room()?;
        let _making = self.inner.making();
        tracing::debug!(disk_id, snapshot_id, ?mounted, "snapshot");
        let layout = &self.inner.layout;
        let from = layout.at(Shelf::Disks, disk_id);
        let to = layout.at(Shelf::Snapshots, snapshot_id);
        let method = self.inner.copy(&from, &to, snapshot_id, Copying { limits: None, mounted })?;
        Ok(SnapshotMade { method: method.into() })
    }

    /// Makes a disk that holds what the snapshot or disk `from` holds.
    pub fn clone_to(
        &self,
        from: &str,
        to: &str,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<Disk, Error> {
        Ok(self.inner.clone_to(from, to, limits, slots)?)
    }

    /// [`Pool::clone_to`] for many at once, with an outcome for each in the same order. With
    /// btrfs up to 128 of them take two or three commits together.
    pub fn clone_many(
        &self,
        from: &str,
        to: &[String],
        limits: &DiskLimits,
        slots: usize,
    ) -> Vec<Result<Disk, Error>> {
        let per_thread = to.len().div_ceil(CLONE_THREADS).max(1);
        let inner = &self.inner;
        let clone = |ids: &[String]| -> Vec<Result<Disk, Error>> {
            ids.iter().map(|id| Ok(inner.clone_to(from, id, limits, slots)?)).collect()
        };
        if to.len() <= 1 {
            return clone(to);
        }
        std::thread::scope(|scope| {
            let begin = |ids| (scope.spawn(move || clone(ids)), ids.len());
            let threads: Vec<_> = to.chunks(per_thread).map(begin).collect();
            let died = |count| {
                let died = || Err(Error::internal("the thread that made a clone died"));
                std::iter::repeat_with(died).take(count).collect()
            };
            threads
                .into_iter()
                .flat_map(|(thread, count)| thread.join().unwrap_or_else(|_| died(count)))
                .collect()
        })
    }

    /// Puts a disk back to what `snapshot_id` holds, in one step: whoever looks sees the old
    /// contents or the new. The limits stay. Nothing may have the disk mounted.
    pub fn replace(&self, disk_id: &str, snapshot_id: &str) -> Result<(), Error> {
        id::check(disk_id)?;
        id::check(snapshot_id)?;
        let layout = &self.inner.layout;
        let disk = layout.at(Shelf::Disks, disk_id);
        let snapshot = layout.at(Shelf::Snapshots, snapshot_id);
        let _making = self.inner.making();
        let limits = self.inner.backend.limits(&disk)?;
        let fresh = layout.attempt(Shelf::Partial, disk_id);
        let made = self.inner.backend.copy(
            &snapshot,
            &fresh,
            Copying { limits: Some(limits), mounted: Mounted::No },
        );
        if let Err(error) = made.and_then(|_| fresh.exchange(&disk)) {
            self.discard(&fresh, disk_id)?;
            return Err(error.into());
        }
        Ok(self.discard(&fresh, disk_id)?)
    }

    /// What a disk or snapshot uses.
    pub fn usage(&self, id: &str) -> Result<DiskUsage, Error> {
        Ok(self.inner.backend.usage(&self.inner.find(id)?)?)
    }

    /// What a disk or snapshot uses, where it is known without a walk over its files.
    pub fn usage_at_once(&self, id: &str) -> Option<DiskUsage> {
        self.inner.backend.usage_at_once(&self.inner.find(id).ok()?)
    }

    /// Whether a disk is at its limit, or the whole pool is: what a command that failed for want
    /// of space is told.
    pub fn is_full(&self, id: &str) -> bool {
        let full = self.inner.find(id).and_then(|place| self.inner.backend.is_full(&place));
        full.unwrap_or(false) || self.space().is_ok_and(|space| space.free_bytes < (1 << 20))
    }

    /// Room in the pool.
    pub fn space(&self) -> Result<PoolSpace, Error> {
        Ok(self.inner.space()?)
    }

    /// Makes all that was acknowledged survive a power loss too.
    pub fn sync(&self) -> Result<(), Error> {
        Ok(self.inner.backend.sync()?)
    }

    /// Removes partial disks, the trash, and every disk and snapshot that is not in `keep`, and
    /// says so. What is in `keep` is never touched.
    pub fn reclaim(&self, keep: &HashSet<String>) -> Result<Vec<RecoveryAction>, Error> {
        Ok(reclaim::reclaim(&self.inner, keep)?)
    }

    /// Ends the background work and unmounts a filesystem that the pool had mounted. The server
    /// does not: its workspaces go on.
    pub fn close(self) -> Result<(), Error> {
        let Self { janitor, inner } = self;
        drop(janitor);
        Ok(inner.backend.unmount()?)
    }

    /// Removes what is at `place` in one step: by moving it to the trash, or by itself when it is
    /// a snapshot, which btrfs does not let be moved.
    fn discard(&self, place: &Place<'_>, id: &str) -> Result<(), DiskError> {
        if place.shelf == Shelf::Snapshots && self.inner.backend.destroys_atomically() {
            return self.inner.backend.destroy(place);
        }
        let trash = self.inner.layout.attempt(Shelf::Trash, id);
        match place.move_to(&trash) {
            Ok(()) => {}
            Err(DiskError::Missing(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        // What a restore replaced has been copied: only a removed disk may become an empty one.
        let recycle = place.shelf == Shelf::Disks && self.inner.forget_source(id);
        match self.janitor.give(Job::Empty { name: trash.name, recycle }) {
            Err(Job::Empty { name, .. }) => self.inner.empty(&name),
            Ok(()) | Err(Job::Warm) => Ok(()),
        }
    }
}
