//! Disks as btrfs subvolumes.
//!
//! Limits are those of a subvolume's quota group. Under *simple* quotas (Linux 6.7) an extent is
//! charged to the subvolume that wrote it until it is freed, so a clone begins with a charge of
//! nothing: what it came with is noted beside its limit and taken off it. A disk therefore never
//! holds more than its limit, inherited bytes included; docs/decisions has why, and the numbers.

pub(crate) mod image;
mod recycle;
mod sysfs;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use pinfold_sys::btrfs::{self, QgroupLimit, QuotaMode};
use pinfold_types::limits::LimitKind;
use rustix::{io::Errno, mount::UnmountFlags};

use crate::{
    backend::{Backend, Copying},
    error::{At, DiskError},
    layout::Place,
    tree,
    types::{DiskLimits, DiskUsage, PoolMethod},
};

/// Room that a disk is given at every start, so that a full one can still be mounted and cleaned:
/// overlay makes its work directory anew, and btrfs reserves about a mebibyte for that.
const START_RESERVE_BYTES: u64 = 4 << 20;
/// Most that these reserves add up to beyond the limit.
const MAX_OVER_BYTES: u64 = 64 << 20;
/// A disk with less room than this counts as full: btrfs reserves that much for one operation.
const FULL_MARGIN_BYTES: u64 = 1 << 20;
/// Most quota groups looked at in one sweep.
const MAX_SWEEP: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Btrfs {
    root: OwnedFd,
    uuid: String,
    quota: Option<QuotaMode>,
    /// The loop file, its directory and the mount, when the pool made them.
    image: Option<image::Mounted>,
    path: PathBuf,
}

/// The charge and limit of one subvolume.
struct Charge {
    id: u64,
    /// Bytes charged by the kernel, those reserved for unwritten data included.
    bytes: u64,
    exclusive: u64,
    limit: QgroupLimit,
}

impl Charge {
    /// Bytes it came with (simple quotas only).
    fn inherited(&self) -> u64 {
        self.limit.notes[0].unwrap_or(0)
    }

    /// Everything that counts against its limit.
    fn total(&self) -> u64 {
        self.bytes.saturating_add(self.inherited())
    }
}

impl Btrfs {
    /// Takes the mounted filesystem at `path`. Quotas are switched on only in an image of ours:
    /// for a whole filesystem of somebody else's that is not ours to decide.
    pub(crate) fn open(path: &Path, image: Option<image::Mounted>) -> Result<Self, DiskError> {
        let root = rustix::fs::open(
            path,
            rustix::fs::OFlags::RDONLY
                | rustix::fs::OFlags::DIRECTORY
                | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .at("open", path.display())?;
        let uuid = btrfs::filesystem_uuid(root.as_fd()).at("read the UUID of", path.display())?;
        let mut status =
            btrfs::quota_status(root.as_fd()).at("read the quotas of", path.display())?;
        if status.is_none() && image.is_some() {
            enable(root.as_fd()).at("switch on quotas of", path.display())?;
            status = btrfs::quota_status(root.as_fd()).at("read the quotas of", path.display())?;
        }
        Ok(Self { root, uuid, quota: status.map(|status| status.mode), image, path: path.into() })
    }

    fn charge(&self, disk: BorrowedFd<'_>, path: &Path) -> Result<Option<Charge>, DiskError> {
        if self.quota.is_none() {
            return Ok(None);
        }
        let id = btrfs::subvolume_id(disk).at("read the subvolume id of", path.display())?;
        let Some(known) =
            btrfs::qgroup(self.root.as_fd(), id).at("read the quota group of", path.display())?
        else {
            return Ok(None);
        };
        // The tree holds what the last commit knew, sysfs what the kernel knows now.
        let now = sysfs::usage(&self.uuid, id);
        Ok(Some(Charge {
            id,
            bytes: now.map_or(known.referenced, |now| now.referenced + now.reserved_data),
            exclusive: now.map_or(known.exclusive, |now| now.exclusive + now.reserved_data),
            limit: known.limit,
        }))
    }

    fn at_birth(&self, limit: QgroupLimit) -> Option<QgroupLimit> {
        self.quota.map(|_| limit)
    }

    /// Writes the limit that a new disk was born with where it can be read back at once: by
    /// itself the kernel does so only with the next commit.
    fn record(&self, place: &Place<'_>, limit: QgroupLimit) -> Result<(), DiskError> {
        if self.quota.is_none() {
            return Ok(());
        }
        let path = place.path();
        let id = btrfs::subvolume_id(place.open()?.as_fd())
            .at("read the subvolume id of", path.display())?;
        self.apply(id, limit, &path)
    }

    fn apply(&self, id: u64, limit: QgroupLimit, path: &Path) -> Result<(), DiskError> {
        btrfs::set_limit(self.root.as_fd(), id, limit).at("set the limit of", path.display())
    }

    /// Gives a disk that is full the room to start.
    fn reserve(&self, place: &Place<'_>) -> Result<(), DiskError> {
        let path = place.path();
        let Some(charge) = self.charge(place.open()?.as_fd(), &path)? else { return Ok(()) };
        let (Some(max), Some(asked)) = (charge.limit.max_bytes, charge.limit.notes[1]) else {
            return Ok(());
        };
        let base = asked.saturating_sub(charge.inherited()).max(START_RESERVE_BYTES);
        let wanted =
            base.max(charge.bytes + START_RESERVE_BYTES).min(base.saturating_add(MAX_OVER_BYTES));
        if wanted == max {
            return Ok(());
        }
        self.apply(charge.id, QgroupLimit { max_bytes: Some(wanted), ..charge.limit }, &path)
    }
}

/// The limit for the kernel of a disk that came with `inherited` bytes.
fn kernel_limit(limits: &DiskLimits, inherited: u64) -> Result<QgroupLimit, DiskError> {
    let max_bytes = match limits.bytes {
        Some(asked) if asked < inherited => {
            return Err(DiskError::LimitBelowContents { asked, held: inherited });
        }
        Some(asked) => Some((asked - inherited).max(START_RESERVE_BYTES)),
        None => None,
    };
    Ok(QgroupLimit { max_bytes, notes: [Some(inherited), limits.bytes] })
}

fn enable(root: BorrowedFd<'_>) -> std::io::Result<()> {
    let known = |error: &std::io::Error| {
        error
            .raw_os_error()
            .map(Errno::from_raw_os_error)
            .is_some_and(|errno| matches!(errno, Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP))
    };
    match btrfs::enable_quota(root, QuotaMode::Simple) {
        // Before Linux 6.7.
        Err(error) if known(&error) => btrfs::enable_quota(root, QuotaMode::Full),
        other => other,
    }
}

impl Backend for Btrfs {
    fn method(&self) -> PoolMethod {
        PoolMethod::Btrfs
    }

    fn describe(&self) -> String {
        let quota = match self.quota {
            Some(QuotaMode::Simple) => "simple quotas",
            Some(QuotaMode::Full) => {
                "full quota groups: removing many clones of a large disk takes minutes of CPU time, \
                 which Linux 6.7 mends"
            }
            None => "quotas off",
        };
        match &self.image {
            Some(image) => format!(
                "btrfs in {} on {} ({}), {quota}",
                image.file.display(),
                image.device,
                if image.direct_io { "direct I/O" } else { "buffered I/O" },
            ),
            None => format!("btrfs at {}, {quota}", self.path.display()),
        }
    }

    fn enforceable(&self, kind: LimitKind) -> Result<String, String> {
        match (kind, self.quota) {
            (LimitKind::Disk, Some(QuotaMode::Simple)) => Ok("btrfs simple quota".into()),
            (LimitKind::Disk, Some(QuotaMode::Full)) => Ok("btrfs qgroup".into()),
            (LimitKind::Disk, None) => Err(format!(
                "quotas are off on the btrfs at {0}; mend: btrfs quota enable --simple {0} \
                 (before Linux 6.7: btrfs quota enable {0})",
                self.path.display()
            )),
            (LimitKind::Inodes, _) => Err("btrfs has no table of inodes to limit; what files' \
                                           metadata takes counts against disk_bytes"
                .into()),
            _ => Err(format!("{} is not a limit of disks", kind.field())),
        }
    }

    fn create(
        &self,
        place: &Place<'_>,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<(), DiskError> {
        let limit = kernel_limit(limits, 0)?;
        btrfs::create_subvolume(place.directory(), &place.name, self.at_birth(limit))
            .at("make the subvolume", place.path().display())?;
        self.record(place, limit)?;
        place.prepare_slots(slots)
    }

    fn prepare_slots(&self, place: &Place<'_>, slots: usize) -> Result<(), DiskError> {
        self.reserve(place)?;
        place.prepare_slots(slots)
    }

    fn copy(
        &self,
        from: &Place<'_>,
        to: &Place<'_>,
        copying: Copying,
    ) -> Result<&'static str, DiskError> {
        let (source, source_path) = (from.open()?, from.path());
        let simple = self.quota == Some(QuotaMode::Simple);
        let inherits = |charge: Option<Charge>| match charge {
            Some(charge) if simple => charge.total(),
            _ => 0,
        };
        let limits = copying.limits.unwrap_or_default();
        let before = inherits(self.charge(source.as_fd(), &source_path)?);
        btrfs::snapshot(
            to.directory(),
            &to.name,
            source.as_fd(),
            copying.limits.is_none(),
            self.at_birth(kernel_limit(&limits, before)?),
        )
        .at("snapshot", source_path.display())?;
        // The snapshot has flushed and charged what was only reserved before.
        let after = inherits(self.charge(source.as_fd(), &source_path)?);
        self.record(to, kernel_limit(&limits, after)?)?;
        Ok("btrfs snapshot")
    }

    fn copies_atomically(&self) -> bool {
        true
    }

    fn destroys_atomically(&self) -> bool {
        true
    }

    fn destroy(&self, place: &Place<'_>) -> Result<(), DiskError> {
        match btrfs::destroy_subvolume(place.directory(), &place.name) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            // Not a subvolume: a directory that somebody put here.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                tree::remove::tree(place)
            }
            other => other.at("remove the subvolume", place.path().display()),
        }
    }

    fn recycle(
        &self,
        place: &Place<'_>,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<bool, DiskError> {
        self.empty(place, limits, slots)
    }

    fn is_fresh(&self, place: &Place<'_>) -> Result<bool, DiskError> {
        let charge = self.charge(place.open()?.as_fd(), &place.path())?;
        let known = sysfs::node_bytes(&self.uuid).zip(charge);
        Ok(known.is_some_and(|(node, now)| now.bytes <= node && now.inherited() == 0))
    }

    fn transaction(&self) -> u64 {
        sysfs::generation(&self.uuid).unwrap_or(0)
    }

    fn commit(&self) -> Result<(), DiskError> {
        btrfs::commit(self.root.as_fd()).at("commit", self.path.display())
    }

    fn limits(&self, place: &Place<'_>) -> Result<DiskLimits, DiskError> {
        let charge = self.charge(place.open()?.as_fd(), &place.path())?;
        Ok(DiskLimits { bytes: charge.and_then(|charge| charge.limit.notes[1]), inodes: None })
    }

    fn set_limits(&self, place: &Place<'_>, limits: &DiskLimits) -> Result<(), DiskError> {
        let path = place.path();
        let Some(charge) = self.charge(place.open()?.as_fd(), &path)? else { return Ok(()) };
        self.apply(charge.id, kernel_limit(limits, charge.inherited())?, &path)
    }

    fn usage(&self, place: &Place<'_>) -> Result<DiskUsage, DiskError> {
        let charge = self.charge(place.open()?.as_fd(), &place.path())?;
        Ok(charge.map_or_else(DiskUsage::default, |charge| DiskUsage {
            referenced_bytes: charge.total(),
            exclusive_bytes: Some(charge.exclusive),
            inodes: None,
        }))
    }

    fn is_full(&self, place: &Place<'_>) -> Result<bool, DiskError> {
        let Some(charge) = self.charge(place.open()?.as_fd(), &place.path())? else {
            return Ok(false);
        };
        let reserved = sysfs::usage(&self.uuid, charge.id).map_or(0, |now| now.reserved_metadata);
        let used = charge.bytes.saturating_add(reserved).saturating_add(FULL_MARGIN_BYTES);
        Ok(charge.limit.max_bytes.is_some_and(|max| used >= max))
    }

    fn sync(&self) -> Result<(), DiskError> {
        btrfs::sync(self.root.as_fd()).at("commit", self.path.display())
    }

    fn sweep(&self) -> Result<usize, DiskError> {
        // Newer kernels (6.18 does) remove the quota group with its subvolume themselves.
        if self.quota.is_none() || self.image.is_none() {
            return Ok(0);
        }
        let root = self.root.as_fd();
        let path = self.path.display();
        let mut removed = 0;
        for id in btrfs::qgroup_ids(root, MAX_SWEEP).at("list the quota groups of", path)? {
            // 5 is the top level, which has no root item of its own name to find.
            if id <= 5 || btrfs::subvolume_exists(root, id).at("search", self.path.display())? {
                continue;
            }
            // Busy: extents that it wrote still live in a clone, and stay charged to it.
            removed += usize::from(btrfs::remove_qgroup(root, id).is_ok());
        }
        Ok(removed)
    }

    fn unmount(&self) -> Result<(), DiskError> {
        if self.image.is_none() {
            return Ok(());
        }
        rustix::mount::unmount(&self.path, UnmountFlags::DETACH).at("unmount", self.path.display())
    }

    fn below(&self) -> Option<&Path> {
        self.image.as_ref().and_then(|image| image.file.parent())
    }
}
