//! What each method of keeping disks must be able to do. Names, shelves, trash and recovery are
//! the pool's business and the same for all.

use std::fmt;

use pinfold_types::limits::LimitKind;

use crate::{
    error::DiskError,
    layout::Place,
    types::{DiskLimits, DiskUsage, PoolMethod},
};

/// How a copy of a disk is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copying {
    /// Limits of the copy. `None`: it is a snapshot, which is read-only and has no limit.
    pub(crate) limits: Option<DiskLimits>,
    /// Files may change and vanish meanwhile.
    pub(crate) live: bool,
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
    /// Whether [`Backend::destroy`] is one step, so that what it is asked to remove needs no trash.
    fn destroys_atomically(&self) -> bool;
    /// Removes what is at `place`.
    fn destroy(&self, place: &Place<'_>) -> Result<(), DiskError>;
    fn limits(&self, place: &Place<'_>) -> Result<DiskLimits, DiskError>;
    fn set_limits(&self, place: &Place<'_>, limits: &DiskLimits) -> Result<(), DiskError>;
    fn usage(&self, place: &Place<'_>) -> Result<DiskUsage, DiskError>;
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
