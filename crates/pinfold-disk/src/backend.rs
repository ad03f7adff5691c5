//! What each method of keeping disks must be able to do. Names, shelves, trash and recovery are
//! the pool's business and the same for all.

use std::fmt;

use pinfold_types::limits::LimitKind;

use crate::{
    error::DiskError,
    layout::{Layout, Place},
    types::{DiskLimits, DiskUsage, Mounted, PoolMethod, SealedLayer},
};

/// How a copy of a disk is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copying {
    /// Limits of the copy. `None`: it is a snapshot, which is read-only and has no limit.
    pub(crate) limits: Option<DiskLimits>,
    /// Who may have the source mounted meanwhile.
    pub(crate) mounted: Mounted,
}

pub(crate) trait Backend: fmt::Debug + Send + Sync {
    fn method(&self) -> PoolMethod;
    /// One sentence for `doctor`.
    fn describe(&self) -> String;
    /// By what `kind` is enforced, or why it cannot be, with the mend.
    fn enforceable(&self, kind: LimitKind) -> Result<String, String>;
    /// Makes an empty disk with `slots` at `place`, which is free.
    fn create(&self, place: &Place<'_>, limits: &DiskLimits, slots: usize)
    -> Result<(), DiskError>;
    /// Makes the slots of an existing disk that are missing.
    fn prepare_slots(&self, place: &Place<'_>, slots: usize) -> Result<(), DiskError>;
    /// Copies the disk or snapshot at `from` to `to`, which is free. Answers how.
    fn copy(
        &self,
        from: &Place<'_>,
        to: &Place<'_>,
        copying: Copying,
    ) -> Result<&'static str, DiskError>;
    /// Whether a copy appears at its place whole or not at all.
    fn copies_atomically(&self) -> bool;
    /// Whether [`Backend::destroy`] is one short step, and the work follows in the background.
    fn destroys_atomically(&self) -> bool;
    /// Removes what is at `place`.
    fn destroy(&self, place: &Place<'_>) -> Result<(), DiskError>;
    /// Empties the disk at `place`, which nobody uses or will find, and gives it these limits and
    /// slots. `false`: it is to be removed instead, and may be half empty.
    fn recycle(
        &self,
        _place: &Place<'_>,
        _limits: &DiskLimits,
        _slots: usize,
    ) -> Result<bool, DiskError> {
        Ok(false)
    }
    /// Whether a disk that was emptied is as one just made; known once that is on the disk.
    fn is_fresh(&self, _place: &Place<'_>) -> Result<bool, DiskError> {
        Ok(false)
    }
    /// The sealed layers that lie below the slots of a disk, topmost first.
    fn sealed(&self, _place: &Place<'_>) -> Result<Vec<SealedLayer>, DiskError> {
        Ok(Vec::new())
    }
    /// Lets the disk at `place`, which is new, stand on layers that are there, topmost first.
    fn stand_on(&self, place: &Place<'_>, layers: &[String]) -> Result<(), DiskError> {
        if layers.is_empty() {
            return Ok(());
        }
        Err(DiskError::Unavailable {
            what: format!("disks of this pool cannot stand on layers, as {} does", place.name),
            mend: "set pool.kind to plain or reflink".into(),
        })
    }
    /// Names of the sealed layers that what is at `place` stands on.
    fn named(&self, _place: &Place<'_>) -> Vec<String> {
        Vec::new()
    }
    /// Moves those of the layers `which`, or of all, that nobody names to the trash; answers
    /// their names there.
    fn collect(
        &self,
        _layout: &Layout,
        _which: Option<&[String]>,
    ) -> Result<Vec<String>, DiskError> {
        Ok(Vec::new())
    }
    /// A number that has grown when all that was done before is on the disk.
    fn transaction(&self) -> u64 {
        0
    }
    /// Puts the state of the filesystem on the disk, without what files have yet to write.
    fn commit(&self) -> Result<(), DiskError> {
        Ok(())
    }
    fn limits(&self, place: &Place<'_>) -> Result<DiskLimits, DiskError>;
    fn set_limits(&self, place: &Place<'_>, limits: &DiskLimits) -> Result<(), DiskError>;
    fn usage(&self, place: &Place<'_>) -> Result<DiskUsage, DiskError>;
    /// [`Backend::usage`], where it takes no walk.
    fn usage_at_once(&self, place: &Place<'_>) -> Option<DiskUsage> {
        self.usage(place).ok()
    }
    /// Whether the disk is at one of its limits, or so near that a write of a page may fail.
    fn is_full(&self, place: &Place<'_>) -> Result<bool, DiskError>;
    /// Makes everything done so far survive a power loss.
    fn sync(&self) -> Result<(), DiskError>;
    /// Removes counters of disks that are gone; answers how many.
    fn sweep(&self) -> Result<usize, DiskError>;
    /// Removes the mount, where the pool made one.
    fn unmount(&self) -> Result<(), DiskError>;
    /// The directory whose free space bounds the pool's too (that of a loop file).
    fn below(&self) -> Option<&std::path::Path>;
}
