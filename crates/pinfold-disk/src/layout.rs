//! Where things lie in a pool. Everything is reached from descriptors of these six directories,
//! by names that were checked, so no path can lead elsewhere.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

pub(crate) use pinfold_sys::tree::DIRECTORY;
use rustix::{
    fs::{AtFlags, FileType, Mode, RawDir, RenameFlags},
    io::Errno,
};

use crate::{
    error::{At, DiskError},
    id::ATTEMPT,
    types::MAX_SLOTS,
};

/// Most entries of one directory of a pool that are looked at.
const MAX_ENTRIES: usize = 1 << 20;

/// Directories below `partial`. The kernel locks the directory that a snapshot is made in until the
/// snapshot is on the disk; made side by side in several, they share one commit.
pub(crate) const LANES: u8 = 128;

/// One of the six directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// Disks of workspaces, by id.
    Disks,
    /// Snapshots, by id.
    Snapshots,
    /// Empty disks made in advance.
    Warm,
    /// Being made.
    Partial,
    /// Being removed.
    Trash,
    /// What several disks and snapshots share, each for as long as one of them names it.
    Layers,
}

impl Shelf {
    /// Those that hold disks, whole or not.
    pub(crate) const OF_DISKS: [Self; 5] =
        [Self::Disks, Self::Snapshots, Self::Warm, Self::Partial, Self::Trash];

    pub(crate) const ALL: [Self; 6] =
        [Self::Disks, Self::Snapshots, Self::Warm, Self::Partial, Self::Trash, Self::Layers];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Disks => "disks",
            Self::Snapshots => "snapshots",
            Self::Warm => "warm",
            Self::Partial => "partial",
            Self::Trash => "trash",
            Self::Layers => "layers",
        }
    }
}

/// The open directories of a pool.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) path: PathBuf,
    pub(crate) root: OwnedFd,
    shelves: [OwnedFd; 6],
    lanes: Vec<OwnedFd>,
    attempts: AtomicU64,
}

/// A name on a shelf.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) shelf: Shelf,
    /// Which directory of [`Shelf::Partial`].
    lane: u8,
    pub(crate) name: String,
}

impl Layout {
    /// Opens the directories below `path`, making those that are missing.
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty()).at("open", path.display())?;
        let open_in = |parent: &OwnedFd, name: &str| -> Result<OwnedFd, DiskError> {
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).at("make", path.join(name).display()),
            }
            rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
                .at("open", path.join(name).display())
        };
        let open = |shelf: Shelf| open_in(&root, shelf.name());
        let shelves = [
            open(Shelf::Disks)?,
            open(Shelf::Snapshots)?,
            open(Shelf::Warm)?,
            open(Shelf::Partial)?,
            open(Shelf::Trash)?,
            open(Shelf::Layers)?,
        ];
        let partial = &shelves[Shelf::Partial as usize];
        let lanes =
            (0..LANES).map(|lane| open_in(partial, &lane.to_string())).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), root, shelves, lanes, attempts: AtomicU64::new(0) })
    }

    /// A name on any shelf but [`Shelf::Partial`].
    pub(crate) fn at(&self, on: Shelf, name: impl Into<String>) -> Place<'_> {
        Place { layout: self, shelf: on, lane: 0, name: name.into() }
    }

    /// A place on a shelf for something that has or will have `id`, used by no other attempt.
    pub(crate) fn attempt(&self, on: Shelf, id: &str) -> Place<'_> {
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        let lane = u8::try_from(number % u64::from(LANES)).expect("below the number of lanes");
        let name = format!("{id}{ATTEMPT}{}.{number}", std::process::id());
        Place { layout: self, shelf: on, lane, name }
    }

    /// What is on a shelf, directories only, in order.
    pub(crate) fn places(&self, on: Shelf) -> Result<Vec<Place<'_>>, DiskError> {
        let mut places = Vec::new();
        for lane in 0..if on == Shelf::Partial { LANES } else { 1 } {
            let mut place = Place { layout: self, shelf: on, lane, name: String::new() };
            for name in names(place.directory(), on)? {
                place.name = name;
                places.push(place.clone());
            }
        }
        Ok(places)
    }
}

fn names(of: BorrowedFd<'_>, on: Shelf) -> Result<Vec<String>, DiskError> {
    // A descriptor of its own: the position in a directory belongs to the open file.
    let directory = rustix::fs::openat(of, ".", DIRECTORY, Mode::empty()).at("open", on.name())?;
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.at("list", on.name())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            names.push(name);
        }
        if names.len() >= MAX_ENTRIES {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Place<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        let mut path = self.layout.path.join(self.shelf.name());
        if self.shelf == Shelf::Partial {
            path.push(self.lane.to_string());
        }
        path.push(&self.name);
        path
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        match self.shelf {
            Shelf::Partial => self.layout.lanes[usize::from(self.lane)].as_fd(),
            _ => self.layout.shelves[self.shelf as usize].as_fd(),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        rustix::fs::statat(self.directory(), &self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Its directory, opened without following a link.
    pub(crate) fn open(&self) -> Result<OwnedFd, DiskError> {
        match rustix::fs::openat(self.directory(), &self.name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Err(DiskError::Missing(self.name.clone())),
            other => other.at("open", self.path().display()),
        }
    }

    /// Moves what is here to `to`, which must be free.
    pub(crate) fn move_to(&self, to: &Place<'_>) -> Result<(), DiskError> {
        let moved = rustix::fs::renameat_with(
            self.directory(),
            &self.name,
            to.directory(),
            &to.name,
            RenameFlags::NOREPLACE,
        );
        match moved {
            Err(Errno::EXIST) => Err(DiskError::Exists(to.name.clone())),
            Err(Errno::NOENT) => Err(DiskError::Missing(self.name.clone())),
            other => other.at("rename", self.path().display()),
        }
    }

    /// Puts what is here where `other` is and the other way round, in one step.
    pub(crate) fn exchange(&self, other: &Place<'_>) -> Result<(), DiskError> {
        rustix::fs::renameat_with(
            self.directory(),
            &self.name,
            other.directory(),
            &other.name,
            RenameFlags::EXCHANGE,
        )
        .at("exchange", other.path().display())
    }

    /// Makes the directories of slots 0 to `slots - 1` that are missing.
    pub(crate) fn prepare_slots(&self, slots: usize) -> Result<(), DiskError> {
        make_slots(&self.open()?, &self.path(), slots)
    }
}

fn make_slots(disk: &OwnedFd, path: &Path, slots: usize) -> Result<(), DiskError> {
    if slots > MAX_SLOTS {
        return Err(DiskError::Slots { asked: slots, most: MAX_SLOTS });
    }
    // The mode of upper/<slot> is what the workspace sees on its `/`.
    let shown = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    for part in ["upper", "work"] {
        make_directory(disk, part, Mode::RWXU, path)?;
        let part_fd = rustix::fs::openat(disk, part, DIRECTORY, Mode::empty())
            .at("open", path.join(part).display())?;
        for slot in 0..slots {
            let name = slot.to_string();
            let fresh = make_directory(&part_fd, &name, shown, path)?;
            // mkdir's mode goes through the process's umask; what is shown inside must not.
            if fresh && part == "upper" {
                rustix::fs::chmodat(&part_fd, name.as_str(), shown, AtFlags::empty())
                    .at("set the mode of", path.join(part).join(&name).display())?;
            }
        }
    }
    Ok(())
}

pub(crate) fn make_directory(
    at: &OwnedFd,
    name: &str,
    mode: Mode,
    path: &Path,
) -> Result<bool, DiskError> {
    match rustix::fs::mkdirat(at, name, mode) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error).at("make", path.join(name).display()),
    }
}
