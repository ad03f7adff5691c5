//! Disks as directories, on any filesystem: copies share their data where it can reflink
//! (`ioctl_ficlone(2)`), and limits are those of project quotas where they are on and really hold.

pub(crate) mod copy;
pub(crate) mod identity;
mod project;
pub(crate) mod remove;

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use pinfold_types::{Mode, limits::LimitKind};
use rustix::fs::{AtFlags, Mode as FileMode};

use crate::{
    backend::{Backend, Copying},
    error::{At, DiskError},
    layout::{Layout, Place, Shelf},
    types::{DiskLimits, DiskUsage, PoolMethod},
};
use identity::SubIds;
use project::Projects;

/// A disk with less room than this counts as full.
const FULL_MARGIN_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct Tree {
    path: PathBuf,
    reflink: bool,
    projects: Result<Projects, String>,
    /// In user mode: who owns what lies in a slot.
    owner: Option<SubIds>,
}

impl Tree {
    /// Takes the directory at `path`. `reflink` as [`reflinks`] found.
    pub(crate) fn open(layout: &Layout, reflink: bool, mode: Mode) -> Result<Self, DiskError> {
        let owner = match mode {
            Mode::Root => None,
            Mode::User => Some(SubIds::of_this_user()?),
        };
        let projects = match mode {
            Mode::Root => Projects::probe(layout),
            Mode::User => Err("project quotas take root; mend: run the server as root".into()),
        };
        Ok(Self { path: layout.path.clone(), reflink, projects, owner })
    }

    fn projects(&self) -> Option<&Projects> {
        self.projects.as_ref().ok()
    }
}

/// Whether files in `directory` can share their data.
pub(crate) fn reflinks(directory: &Path) -> bool {
    let file = |bytes: &[u8]| -> std::io::Result<std::fs::File> {
        // A file without a name: nothing is left whatever happens.
        let file = std::fs::File::from(rustix::fs::open(
            directory,
            rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            FileMode::RUSR | FileMode::WUSR,
        )?);
        std::io::Write::write_all(&mut &file, bytes)?;
        Ok(file)
    };
    let clone = || -> std::io::Result<()> {
        Ok(rustix::fs::ioctl_ficlone(&file(&[])?, &file(&[1; 4096])?)?)
    };
    clone().is_ok()
}

impl Backend for Tree {
    fn method(&self) -> PoolMethod {
        if self.reflink { PoolMethod::Reflink } else { PoolMethod::Plain }
    }

    fn describe(&self) -> String {
        let copies = if self.reflink {
            "copies share data, and take time by the number of files"
        } else {
            "copies take time and space by size"
        };
        let limits = match &self.projects {
            Ok(_) => "project quotas hold",
            Err(why) => why,
        };
        format!("directories in {}: {copies}; {limits}", self.path.display())
    }

    fn enforceable(&self, kind: LimitKind) -> Result<String, String> {
        match (kind, &self.projects) {
            (LimitKind::Disk | LimitKind::Inodes, Ok(_)) => Ok("project quota".into()),
            (LimitKind::Disk | LimitKind::Inodes, Err(why)) => {
                Err(format!("disk limits cannot be enforced here: {why}"))
            }
            _ => Err(format!("{} is not a limit of disks", kind.field())),
        }
    }

    fn create(
        &self,
        place: &Place<'_>,
        limits: &DiskLimits,
        slots: usize,
    ) -> Result<(), DiskError> {
        let path = place.path();
        rustix::fs::mkdirat(place.directory(), &place.name, FileMode::RWXU)
            .at("make", path.display())?;
        if let Some(projects) = self.projects() {
            projects.assign(place.open()?.as_fd(), limits, &path)?;
        }
        self.prepare_slots(place, slots)
    }

    fn prepare_slots(&self, place: &Place<'_>, slots: usize) -> Result<(), DiskError> {
        let fresh = place.prepare_slots(slots)?;
        match &self.owner {
            Some(owner) if !fresh.is_empty() => {
                // The workspace's root mounts the slots and is nobody to these directories, which
                // stay the server's. What lies above them is closed to all others.
                let through = FileMode::RWXU | FileMode::XGRP | FileMode::XOTH;
                let disk = place.open()?;
                for directory in [".", "upper", "work"] {
                    rustix::fs::chmodat(&disk, directory, through, AtFlags::empty())
                        .at("set the mode of", place.path().join(directory).display())?;
                }
                owner.give(&place.path(), &fresh)
            }
            _ => Ok(()),
        }
    }

    fn copy(
        &self,
        from: &Place<'_>,
        to: &Place<'_>,
        copying: Copying,
    ) -> Result<&'static str, DiskError> {
        let to_path = to.path();
        if let Some(owner) = &self.owner {
            from.open()?;
            owner.copy(&from.path(), &to_path)?;
        } else {
            let source = from.open()?;
            rustix::fs::mkdirat(to.directory(), &to.name, FileMode::RWXU)
                .at("make", to_path.display())?;
            let target = to.open()?;
            if let (Some(projects), Some(limits)) = (self.projects(), &copying.limits) {
                projects.assign(target.as_fd(), limits, &to_path)?;
            }
            copy::tree(
                &source,
                &target,
                copy::Manner { reflink: self.reflink, live: copying.live },
            )
            .at("copy", from.path().display())?;
        }
        // The pool's other methods make a copy durable in making it.
        if copying.limits.is_none() {
            self.sync()?;
        }
        Ok(if self.reflink { "reflink" } else { "copy" })
    }

    fn copies_atomically(&self) -> bool {
        false
    }

    fn destroys_atomically(&self) -> bool {
        false
    }

    fn destroy(&self, place: &Place<'_>) -> Result<(), DiskError> {
        if !place.exists() {
            return Ok(());
        }
        match &self.owner {
            Some(owner) => owner.remove(&place.path()),
            None => remove::tree(place),
        }
    }

    fn limits(&self, place: &Place<'_>) -> Result<DiskLimits, DiskError> {
        match self.projects() {
            Some(_) => {
                let quota = project::usage(place.open()?.as_fd(), &place.path())?;
                Ok(DiskLimits { bytes: quota.max_bytes, inodes: quota.max_inodes })
            }
            None => Ok(DiskLimits::default()),
        }
    }

    fn set_limits(&self, place: &Place<'_>, limits: &DiskLimits) -> Result<(), DiskError> {
        match self.projects() {
            Some(_) => project::set(place.open()?.as_fd(), limits, &place.path()),
            None => place.open().map(drop),
        }
    }

    fn usage(&self, place: &Place<'_>) -> Result<DiskUsage, DiskError> {
        let disk = place.open()?;
        if self.projects().is_some() && place.shelf == Shelf::Disks {
            let quota = project::usage(disk.as_fd(), &place.path())?;
            return Ok(DiskUsage {
                referenced_bytes: quota.bytes,
                exclusive_bytes: (!self.reflink).then_some(quota.bytes),
                inodes: Some(quota.inodes),
            });
        }
        let (bytes, inodes) = match &self.owner {
            Some(owner) => owner.measure(&place.path())?,
            None => copy::measure(&disk).at("measure", place.path().display())?,
        };
        Ok(DiskUsage {
            referenced_bytes: bytes,
            exclusive_bytes: (!self.reflink).then_some(bytes),
            inodes: Some(inodes),
        })
    }

    fn is_full(&self, place: &Place<'_>) -> Result<bool, DiskError> {
        if self.projects().is_none() {
            return Ok(false);
        }
        let quota = project::usage(place.open()?.as_fd(), &place.path())?;
        let bytes = quota.max_bytes.is_some_and(|max| quota.bytes + FULL_MARGIN_BYTES >= max);
        Ok(bytes || quota.max_inodes.is_some_and(|max| quota.inodes >= max))
    }

    fn sync(&self) -> Result<(), DiskError> {
        let root = std::fs::File::open(&self.path).at("open", self.path.display())?;
        rustix::fs::syncfs(&root).at("sync", self.path.display())
    }

    fn sweep(&self) -> Result<usize, DiskError> {
        Ok(0)
    }

    fn unmount(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn below(&self) -> Option<&Path> {
        None
    }
}
