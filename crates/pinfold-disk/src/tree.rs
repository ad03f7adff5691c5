//! Disks as directories, on any filesystem: what is stopped is sealed into layers and not copied,
//! what runs is copied, sharing data where it can reflink (`ioctl_ficlone(2)`), and limits are
//! those of project quotas where they are on and really hold.

pub(crate) mod copy;
pub(crate) mod identity;
mod layers;
mod project;
pub(crate) mod remove;
mod slots;

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use pinfold_types::{Mode, limits::LimitKind};
use rustix::fs::{AtFlags, Mode as FileMode};

use crate::{
    backend::{Backend, Copying},
    error::{At, DiskError},
    layout::{DIRECTORY, Layout, Place, Shelf},
    types::{DiskLimits, DiskUsage, Mounted, PoolMethod, SealedLayer},
};
use identity::SubIds;
use layers::{Layers, Sealing};
use project::Projects;
use slots::Content;

/// A disk with less room than this counts as full.
const FULL_MARGIN_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct Tree {
    path: PathBuf,
    reflink: bool,
    projects: Result<Projects, String>,
    /// In user mode: who owns what lies in a slot.
    owner: Option<SubIds>,
    layers: Layers,
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
        let layers = Layers::default();
        layers.recover(layout)?;
        Ok(Self { path: layout.path.clone(), reflink, projects, owner, layers })
    }

    fn projects(&self) -> Option<&Projects> {
        self.projects.as_ref().ok()
    }

    /// Makes the directory of a disk, or of a snapshot, which has no limits.
    fn make(&self, place: &Place<'_>, limits: Option<&DiskLimits>) -> Result<(), DiskError> {
        let path = place.path();
        rustix::fs::mkdirat(place.directory(), &place.name, FileMode::RWXU)
            .at("make", path.display())?;
        if let (Some(projects), Some(limits)) = (self.projects(), limits) {
            projects.assign(place.open()?.as_fd(), limits, &path)?;
        }
        Ok(())
    }

    /// Seals what a disk or snapshot that nobody has mounted holds. Whether all of it is in
    /// layers now.
    fn seal(&self, place: &Place<'_>) -> Result<bool, DiskError> {
        let mut peculiar = false;
        let sealing = self.layers.seal(place, |sealed| {
            let content = slots::content(place, sealed, self.owner)?;
            peculiar = content == Content::Peculiar;
            Ok(content == Content::Something)
        })?;
        Ok(sealing == Sealing::Sealed && !peculiar)
    }

    /// Copies the slots of `from`; what works for overlay's own work is not copied.
    fn copy_slots(&self, from: &Place<'_>, to: &Place<'_>, live: bool) -> Result<(), DiskError> {
        const UPPER: &str = "upper";
        let (source, target, path) = (from.open()?, to.open()?, from.path());
        if rustix::fs::statat(&source, UPPER, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            return Ok(());
        }
        if let Some(owner) = &self.owner {
            let through = FileMode::RWXU | FileMode::XGRP | FileMode::XOTH;
            rustix::fs::fchmod(&target, through).at("set the mode of", to.path().display())?;
            return owner.copy(&path.join(UPPER), &to.path().join(UPPER));
        }
        let open = |disk| rustix::fs::openat(disk, UPPER, DIRECTORY, FileMode::empty());
        rustix::fs::mkdirat(&target, UPPER, FileMode::RWXU).at("make", to.path().display())?;
        let (source, target) = (
            open(&source).at("open", path.display())?,
            open(&target).at("open", to.path().display())?,
        );
        let manner = copy::Manner { reflink: self.reflink, live };
        copy::tree(&source, &target, manner).at("copy", path.display())
    }

    fn measure(&self, place: &Place<'_>) -> Result<(u64, u64), DiskError> {
        match &self.owner {
            Some(owner) => owner.measure(&place.path()),
            None => copy::measure(&place.open()?).at("measure", place.path().display()),
        }
    }

    fn measure_layer(&self, layout: &Layout, name: &str) -> Result<(u64, u64), DiskError> {
        self.layers.size(name, || self.measure(&layout.at(Shelf::Layers, name)))
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
            "copies of running ones share data, and take time by the number of files"
        } else {
            "copies of running ones take time and space by size"
        };
        let limits = match &self.projects {
            Ok(_) => "project quotas hold",
            Err(why) => why,
        };
        format!(
            "directories in {}: stopped workspaces are sealed, whatever their size; {copies}; \
             {limits}",
            self.path.display()
        )
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
        self.make(place, Some(limits))?;
        self.prepare_slots(place, slots)
    }

    fn prepare_slots(&self, place: &Place<'_>, slots: usize) -> Result<(), DiskError> {
        let sealed = self.layers.of(place)?;
        slots::prepare(place, slots, &sealed, self.owner)
    }

    fn copy(
        &self,
        from: &Place<'_>,
        to: &Place<'_>,
        copying: Copying,
    ) -> Result<&'static str, DiskError> {
        let sealed = copying.mounted == Mounted::No && self.seal(from)?;
        self.make(to, copying.limits.as_ref())?;
        // A snapshot is synced as a whole once it has its name.
        self.layers.share(from, to, copying.limits.is_some())?;
        if sealed {
            return Ok("sealed layer");
        }
        self.copy_slots(from, to, copying.mounted == Mounted::Live)?;
        if copying.limits.is_none() {
            // What is forked from it need not copy this again.
            self.seal(to)?;
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

    fn sealed(&self, place: &Place<'_>) -> Result<Vec<SealedLayer>, DiskError> {
        self.layers.of(place)
    }

    fn stand_on(&self, place: &Place<'_>, layers: &[String]) -> Result<(), DiskError> {
        self.layers.stand_on(place, layers)
    }

    fn named(&self, place: &Place<'_>) -> Vec<String> {
        // A list that cannot be read keeps its layers until the next start, which looks at all.
        layers::names(place).unwrap_or_default()
    }

    fn collect(&self, layout: &Layout, which: Option<&[String]>) -> Result<Vec<String>, DiskError> {
        self.layers.collect(layout, which)
    }

    fn usage(&self, place: &Place<'_>) -> Result<DiskUsage, DiskError> {
        let disk = place.open()?;
        let quota = match self.projects() {
            Some(_) if place.shelf == Shelf::Disks => {
                Some(project::usage(disk.as_fd(), &place.path())?)
            }
            _ => None,
        };
        let (own_bytes, mut inodes) = match &quota {
            Some(quota) => (quota.bytes, quota.inodes),
            None => self.measure(place)?,
        };
        let (mut referenced_bytes, mut exclusive_bytes) = (own_bytes, own_bytes);
        let names = layers::names(place)?;
        if !names.is_empty() {
            let counts = self.layers.counts(place.layout)?;
            for name in names {
                let (bytes, count) = self.measure_layer(place.layout, &name)?;
                // With quotas, what a disk sealed itself stays charged to its project.
                if quota.is_none() {
                    inodes = inodes.saturating_add(count);
                } else if project::is_of(disk.as_fd(), &place.layout.at(Shelf::Layers, &*name)) {
                    continue;
                }
                referenced_bytes = referenced_bytes.saturating_add(bytes);
                if counts.get(&name).is_some_and(|names| *names == 1) {
                    exclusive_bytes = exclusive_bytes.saturating_add(bytes);
                }
            }
        }
        Ok(DiskUsage {
            referenced_bytes,
            exclusive_bytes: (!self.reflink).then_some(exclusive_bytes),
            inodes: Some(inodes),
        })
    }

    fn usage_at_once(&self, place: &Place<'_>) -> Option<DiskUsage> {
        // A snapshot that stands on layers that were measured before holds next to nothing else.
        let known = |name: &String| self.layers.known_size(name).is_some();
        let short = place.shelf == Shelf::Snapshots && !place.path().join("upper").exists();
        (short && layers::names(place).ok()?.iter().all(known))
            .then(|| self.usage(place).ok())
            .flatten()
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
