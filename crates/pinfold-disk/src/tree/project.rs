//! Project quotas of a pool: one project a disk.

use std::{
    io::Write,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use pinfold_sys::quota::{self, ProjectQuota};
use rustix::thread::CapabilitySet;

use crate::{
    error::{At, DiskError},
    layout::{Layout, Place, Shelf},
    types::DiskLimits,
};

/// The first project id given out, far above those that people write into /etc/projects.
const FIRST: u32 = 0x5000_0000;
const PROBE_BYTES: u64 = 256 << 10;
const PROBE_INODES: u64 = 4;

#[derive(Debug)]
pub(super) struct Projects {
    next: AtomicU32,
}

impl Projects {
    /// Finds out by trying whether project quotas hold here, for bytes and for inodes. The error
    /// says why not and what mends it.
    pub(super) fn probe(layout: &Layout) -> Result<Self, String> {
        let mend = "mount the pool's filesystem with -o prjquota (XFS; ext4 after `tune2fs -O \
                    project,quota`), on a kernel built with quotas for it, or let the pool be btrfs";
        let projects = Self { next: AtomicU32::new(highest(layout).saturating_add(1).max(FIRST)) };
        match projects.holds(layout) {
            Ok(true) => Ok(projects),
            Ok(false) => Err(format!("project quotas do not stop writes here; mend: {mend}")),
            Err(error) => Err(format!("project quotas are off here ({error}); mend: {mend}")),
        }
    }

    fn holds(&self, layout: &Layout) -> std::io::Result<bool> {
        let place = layout.attempt(Shelf::Partial, "probe");
        rustix::fs::mkdirat(place.directory(), &place.name, rustix::fs::Mode::RWXU)?;
        let tried = || -> std::io::Result<bool> {
            let directory = place.open().map_err(std::io::Error::other)?;
            let project = self.next.fetch_add(1, Ordering::Relaxed);
            quota::set_project(directory.as_fd(), project)?;
            quota::set_limits(directory.as_fd(), project, Some(PROBE_BYTES), Some(PROBE_INODES))?;
            let path = place.path();
            // With CAP_SYS_RESOURCE ext4 lets root pass every limit; workspaces have it nowhere
            // that counts. Capabilities belong to a thread, so one is made for the trial.
            let stopped = std::thread::scope(|scope| {
                scope
                    .spawn(|| -> std::io::Result<(bool, bool)> {
                        drop_resource_capability()?;
                        Ok((bytes_stop(&path)?, inodes_stop(&path)))
                    })
                    .join()
                    .unwrap_or_else(|_| Err(std::io::Error::other("the trial panicked")))
            })?;
            quota::set_limits(directory.as_fd(), project, None, None)?;
            Ok(stopped == (true, true))
        };
        let holds = tried();
        super::remove::tree(&place).map_err(std::io::Error::other)?;
        holds
    }

    /// Puts a new directory into a project of its own with these limits.
    pub(super) fn assign(
        &self,
        directory: BorrowedFd<'_>,
        limits: &DiskLimits,
        path: &Path,
    ) -> Result<(), DiskError> {
        let project = self.next.fetch_add(1, Ordering::Relaxed);
        quota::set_limits(directory, project, limits.bytes, limits.inodes)
            .and_then(|()| quota::set_project(directory, project))
            .at("set the project quota of", path.display())
    }
}

/// Changes the limits of the disk `directory`.
pub(super) fn set(
    directory: BorrowedFd<'_>,
    limits: &DiskLimits,
    path: &Path,
) -> Result<(), DiskError> {
    quota::project(directory)
        .and_then(|project| quota::set_limits(directory, project, limits.bytes, limits.inodes))
        .at("set the project quota of", path.display())
}

/// Count and limits of the disk `directory`.
pub(super) fn usage(directory: BorrowedFd<'_>, path: &Path) -> Result<ProjectQuota, DiskError> {
    quota::project(directory)
        .and_then(|project| quota::get(directory, project))
        .at("read the project quota of", path.display())
}

/// Whether the layer at `layer` was written under the project of `disk`.
pub(super) fn is_of(disk: BorrowedFd<'_>, layer: &Place<'_>) -> bool {
    let upper = std::fs::File::open(layer.path().join("upper"));
    let of = upper.and_then(|upper| quota::project(upper.as_fd()));
    matches!((of, quota::project(disk)), (Ok(of), Ok(own)) if of == own)
}

/// The highest project that a disk of this pool has.
fn highest(layout: &Layout) -> u32 {
    Shelf::ALL
        .into_iter()
        .flat_map(|shelf| layout.places(shelf).unwrap_or_default())
        .filter_map(|place| match place.shelf {
            // What was sealed stays charged to the disk that wrote it.
            Shelf::Layers => {
                let upper = std::fs::File::open(place.path().join("upper")).ok()?;
                quota::project(upper.as_fd()).ok()
            }
            _ => quota::project(place.open().ok()?.as_fd()).ok(),
        })
        .max()
        .unwrap_or(0)
}

fn drop_resource_capability() -> std::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn bytes_stop(directory: &Path) -> std::io::Result<bool> {
    let mut file = std::fs::File::create(directory.join("bytes"))?;
    let block = [1; 4096];
    let written = (0..2 * PROBE_BYTES / 4096)
        .try_for_each(|_| file.write_all(&block))
        .and_then(|()| file.sync_all());
    drop(file);
    std::fs::remove_file(directory.join("bytes"))?;
    Ok(written.is_err())
}

fn inodes_stop(directory: &Path) -> bool {
    (0..2 * PROBE_INODES)
        .any(|number| std::fs::File::create(directory.join(number.to_string())).is_err())
}
