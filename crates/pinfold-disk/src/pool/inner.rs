//! The part of a pool that its background thread shares.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{
    backend::{Backend, Copying},
    error::{At, DiskError},
    id,
    layout::{Layout, Place, Shelf},
    types::{Disk, DiskLimits, MAX_SLOTS, Mounted, PoolSpace, SealedLayer},
};

/// Most warm disks of one pool.
const MAX_WARM: usize = 256;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) backend: Box<dyn Backend>,
    pub(super) min_free_bytes: u64,
    warm: Mutex<Warm>,
    making: RwLock<()>,
    /// Disks that were copied since the start. An earlier one's copies are found by the charge.
    sources: Mutex<HashSet<String>>,
    /// Something half made may lie about: found at the start, or it could not be cleaned up.
    leftovers: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Warm {
    pub(super) wanted: usize,
    pub(super) limits: DiskLimits,
    pub(super) slots: usize,
    pub(super) ready: Vec<WarmDisk>,
    /// Removed disks that are being made empty ones.
    pub(super) coming: usize,
    made: u64,
}

#[derive(Clone, Debug)]
pub(super) struct WarmDisk {
    pub(super) name: String,
    pub(super) limits: DiskLimits,
    pub(super) slots: usize,
}

impl Inner {
    pub(crate) fn new(
        layout: Layout,
        backend: Box<dyn Backend>,
        min_free_bytes: u64,
    ) -> Result<Self, DiskError> {
        let inner = Self {
            layout,
            backend,
            min_free_bytes,
            warm: Mutex::default(),
            making: RwLock::default(),
            sources: Mutex::default(),
            leftovers: AtomicBool::new(false),
        };
        inner.adopt_warm()?;
        inner.set_leftovers(!inner.layout.places(Shelf::Partial)?.is_empty());
        Ok(inner)
    }

    pub(super) fn has_leftovers(&self) -> bool {
        self.leftovers.load(Ordering::Relaxed)
    }

    pub(crate) fn set_leftovers(&self, some: bool) {
        self.leftovers.store(some, Ordering::Relaxed);
    }

    /// From now on this many disks of this kind are to be kept ready.
    pub(super) fn want_warm(&self, count: usize, limits: &DiskLimits, slots: usize) {
        let mut warm = self.warm();
        warm.wanted = count.min(MAX_WARM);
        warm.limits = *limits;
        warm.slots = slots;
    }

    pub(super) fn warm_ready(&self) -> usize {
        self.warm().ready.len()
    }

    pub(super) fn disk_at(self: &Arc<Self>, place: &Place<'_>, id: &str) -> Disk {
        Disk { id: id.into(), path: place.path(), pool: Arc::downgrade(self) }
    }

    pub(crate) fn prepare_slots(&self, id: &str, slots: usize) -> Result<(), DiskError> {
        self.backend.prepare_slots(&self.layout.at(Shelf::Disks, id), slots)
    }

    pub(crate) fn sealed(&self, id: &str) -> Result<Vec<SealedLayer>, DiskError> {
        self.backend.sealed(&self.layout.at(Shelf::Disks, id))
    }

    /// Held while something is being made, so that [`Pool::reclaim`] does not take it for a
    /// leftover.
    pub(super) fn making(&self) -> RwLockReadGuard<'_, ()> {
        self.making.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while leftovers are removed.
    pub(crate) fn reclaiming(&self) -> RwLockWriteGuard<'_, ()> {
        self.making.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn warm(&self) -> MutexGuard<'_, Warm> {
        // The lists inside are whole between any two statements.
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sources(&self) -> MutexGuard<'_, HashSet<String>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wants_warm(&self) -> bool {
        let warm = self.warm();
        warm.ready.len() + warm.coming < warm.wanted
    }

    pub(super) fn warm_name(&self) -> String {
        let mut warm = self.warm();
        warm.made += 1;
        format!("warm-{}-{}", std::process::id(), warm.made)
    }

    /// The disk or snapshot with this id.
    pub(super) fn find(&self, id: &str) -> Result<Place<'_>, DiskError> {
        id::check(id)?;
        [Shelf::Disks, Shelf::Snapshots]
            .into_iter()
            .map(|shelf| self.layout.at(shelf, id))
            .find(Place::exists)
            .ok_or_else(|| DiskError::Missing(id.into()))
    }

    pub(crate) fn space(&self) -> Result<PoolSpace, DiskError> {
        let read = |stat: rustix::fs::StatVfs| {
            (
                stat.f_blocks.saturating_mul(stat.f_frsize),
                stat.f_bavail.saturating_mul(stat.f_frsize),
            )
        };
        let path = &self.layout.path;
        let (total_bytes, mut free_bytes) =
            read(rustix::fs::fstatvfs(&self.layout.root).at("read the space of", path.display())?);
        if let Some(below) = self.backend.below() {
            let (_, below_free) =
                read(rustix::fs::statvfs(below).at("read the space of", below.display())?);
            free_bytes = free_bytes.min(below_free);
        }
        Ok(PoolSpace { total_bytes, free_bytes })
    }

    pub(super) fn check_room(&self) -> Result<(), DiskError> {
        let space = self.space()?;
        if space.free_bytes < self.min_free_bytes {
            return Err(DiskError::PoolFull {
                path: self.layout.path.clone(),
                free: space.free_bytes,
                total: space.total_bytes,
                least: self.min_free_bytes,
            });
        }
        Ok(())
    }

    pub(super) fn create(
        self: &Arc<Self>,
        id: &str,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<Disk, DiskError> {
        id::check(id)?;
        let _making = self.making();
        limits.check(|kind| self.backend.enforceable(kind))?;
        self.check_room()?;
        let place = self.layout.at(Shelf::Disks, id);
        let taken = { self.warm().ready.pop() };
        if let Some(warm) = taken {
            match self.take_warm(&warm, &place, limits, slots) {
                Ok(()) => return Ok(self.disk_at(&place, id)),
                Err(error @ DiskError::Exists(_)) => {
                    self.warm().ready.push(warm);
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%error, name = warm.name, "a warm disk could not be used");
                    let gone = self.layout.attempt(Shelf::Trash, &warm.name);
                    if self.layout.at(Shelf::Warm, &warm.name).move_to(&gone).is_ok() {
                        self.empty(&gone.name)?;
                    }
                }
            }
        }
        let fresh = self.layout.attempt(Shelf::Partial, id);
        self.finish(self.backend.create(&fresh, limits, slots), &fresh, &place)?;
        Ok(self.disk_at(&place, id))
    }

    fn take_warm(
        &self,
        warm: &WarmDisk,
        to: &Place<'_>,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<(), DiskError> {
        let place = self.layout.at(Shelf::Warm, &warm.name);
        if warm.limits != *limits {
            self.backend.set_limits(&place, limits)?;
        }
        if warm.slots < slots {
            self.backend.prepare_slots(&place, slots)?;
        }
        place.move_to(to)
    }

    /// Gives what was made its name, or removes it when making or naming failed.
    fn finish(
        &self,
        made: Result<(), DiskError>,
        fresh: &Place<'_>,
        place: &Place<'_>,
    ) -> Result<(), DiskError> {
        made.and_then(|()| fresh.move_to(place)).inspect_err(|_| {
            if fresh.exists()
                && let Err(error) = self.wipe(fresh)
            {
                self.set_leftovers(true);
                tracing::warn!(%error, name = fresh.name, "left for the next start to reclaim");
            }
        })
    }

    pub(super) fn copy(
        &self,
        from: &Place<'_>,
        to: &Place<'_>,
        id: &str,
        copying: Copying,
    ) -> Result<&'static str, DiskError> {
        if to.exists() {
            return Err(DiskError::Exists(id.into()));
        }
        self.shared(&from.name);
        if self.backend.copies_atomically() && copying.limits.is_none() {
            return self.backend.copy(from, to, copying);
        }
        let fresh = self.layout.attempt(Shelf::Partial, id);
        let made = self.backend.copy(from, &fresh, copying);
        let (method, made) = match made {
            Ok(method) => (method, Ok(())),
            Err(error) => ("", Err(error)),
        };
        self.finish(made, &fresh, to)?;
        // The pool's other methods make a snapshot durable in making it.
        if copying.limits.is_none() {
            self.backend.sync()?;
        }
        Ok(method)
    }

    pub(super) fn clone_to(
        self: &Arc<Self>,
        from: &str,
        to: &str,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<Disk, DiskError> {
        id::check(to)?;
        let _making = self.making();
        limits.check(|kind| self.backend.enforceable(kind))?;
        self.check_room()?;
        let source = self.find(from)?;
        let place = self.layout.at(Shelf::Disks, to);
        if place.exists() {
            return Err(DiskError::Exists(to.into()));
        }
        if source.shelf == Shelf::Disks {
            self.shared(from);
        }
        // Of a snapshot nobody has anything mounted; of a disk the caller need not know.
        let mounted = if source.shelf == Shelf::Disks { Mounted::Live } else { Mounted::No };
        let fresh = self.layout.attempt(Shelf::Partial, to);
        let made = self
            .backend
            .copy(&source, &fresh, Copying { limits: Some(*limits), mounted })
            .and_then(|_| self.backend.prepare_slots(&fresh, slots));
        self.finish(made, &fresh, &place)?;
        Ok(self.disk_at(&place, to))
    }

    /// Removes one name from the trash, and the layers that only it named.
    pub(crate) fn empty(&self, name: &str) -> Result<(), DiskError> {
        self.wipe(&self.layout.at(Shelf::Trash, name))
    }

    fn wipe(&self, place: &Place<'_>) -> Result<(), DiskError> {
        let named = self.backend.named(place);
        self.backend.destroy(place)?;
        if named.is_empty() {
            return Ok(());
        }
        for layer in self.backend.collect(&self.layout, Some(&named))? {
            self.backend.destroy(&self.layout.at(Shelf::Trash, layer))?;
        }
        Ok(())
    }

    /// Makes warm disks until there are as many as wanted.
    pub(crate) fn refill(&self) -> Result<(), DiskError> {
        for _ in 0..MAX_WARM {
            if !self.wants_warm() {
                return Ok(());
            }
            let (limits, slots) = {
                let warm = self.warm();
                (warm.limits, warm.slots)
            };
            self.check_room()?;
            let _making = self.making();
            let name = self.warm_name();
            let place = self.layout.at(Shelf::Warm, &name);
            let fresh = self.layout.attempt(Shelf::Partial, &name);
            self.finish(self.backend.create(&fresh, &limits, slots), &fresh, &place)?;
            self.warm().ready.push(WarmDisk { name, limits, slots });
        }
        Ok(())
    }

    /// Takes over the warm disks of an earlier process.
    fn adopt_warm(&self) -> Result<(), DiskError> {
        for place in self.layout.places(Shelf::Warm)? {
            let limits = self.backend.limits(&place)?;
            let slots = (0..MAX_SLOTS)
                .take_while(|slot| place.path().join(format!("work/{slot}")).is_dir())
                .count();
            self.warm().ready.push(WarmDisk { name: place.name, limits, slots });
        }
        Ok(())
    }
}
