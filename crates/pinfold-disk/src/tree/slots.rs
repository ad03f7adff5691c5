//! The slots of disks that are directories. A slot above a sealed layer looks like the one it
//! covers: what a workspace's `/` is belongs to the topmost layer alone.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Gid, Mode, RenameFlags, Uid},
    io::Errno,
};

use super::{copy, identity::SubIds};
use crate::{
    error::{At, DiskError},
    layout::{DIRECTORY, Place, make_directory},
    types::{MAX_SLOTS, SealedLayer},
};

/// What a slot of its own kind looks like, where nothing was sealed below it.
const SHOWN: u32 = 0o755;

/// Owner and mode of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    uid: u32,
    gid: u32,
    mode: u32,
}

fn look(path: &Path) -> Result<Look, DiskError> {
    let meta = std::fs::symlink_metadata(path).at("look at", path.display())?;
    Ok(Look { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o7777 })
}

fn first_look(owner: Option<SubIds>) -> Look {
    let id = owner.map_or(0, SubIds::base);
    Look { uid: id, gid: id, mode: SHOWN }
}

/// The directory that is right below `slot`.
fn below(sealed: &[SealedLayer], slot: usize) -> Option<std::path::PathBuf> {
    let layer = sealed.iter().find(|layer| layer.slots > slot)?;
    Some(layer.path.join(format!("upper/{slot}")))
}

/// Makes the slots 0 to `slots - 1` that are missing.
pub(super) fn prepare(
    place: &Place<'_>,
    slots: usize,
    sealed: &[SealedLayer],
    owner: Option<SubIds>,
) -> Result<(), DiskError> {
    if slots > MAX_SLOTS {
        return Err(DiskError::Slots { asked: slots, most: MAX_SLOTS });
    }
    let (disk, path) = (place.open()?, place.path());
    // The workspace's root mounts the slots and is nobody to these directories, which stay the
    // server's. What lies above them is closed to all others.
    let through = Mode::RWXU | Mode::XGRP | Mode::XOTH;
    let mut made: Vec<(String, String, Look)> = Vec::new();
    for part in ["upper", "work"] {
        let fresh = make_directory(&disk, part, Mode::RWXU, &path)?;
        if fresh && owner.is_some() {
            for directory in [".", part] {
                rustix::fs::chmodat(&disk, directory, through, AtFlags::empty())
                    .at("set the mode of", path.join(directory).display())?;
            }
        }
        for slot in 0..slots {
            let name = format!("{part}/{slot}");
            if rustix::fs::statat(&disk, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                continue;
            }
            let under = if part == "upper" { below(sealed, slot) } else { None };
            let like = match &under {
                Some(under) => look(under)?,
                None => first_look(owner),
            };
            // Under another name until it looks as it is to.
            let raw = format!("{part}/~{slot}");
            discard(&disk, &raw, &path)?;
            make_directory(&disk, &raw, Mode::RWXU, &path)?;
            rustix::fs::chmodat(&disk, &raw, Mode::from_raw_mode(like.mode), AtFlags::empty())
                .at("set the mode of", path.join(&raw).display())?;
            if let (Some(under), None) = (&under, owner) {
                dress(&disk, &raw, under, like).at("dress", path.join(&raw).display())?;
            }
            made.push((raw, name, like));
        }
    }
    if let Some(owner) = owner {
        // Almost always one owner for all.
        let mut left: &mut [(String, String, Look)] = &mut made;
        while let Some((_, _, like)) = left.first().cloned() {
            let same = |other: &Look| (other.uid, other.gid) == (like.uid, like.gid);
            left.sort_by_key(|(_, _, look)| !same(look));
            let count = left.iter().filter(|(_, _, look)| same(look)).count();
            let (now, later) = left.split_at_mut(count);
            let paths: Vec<String> = now.iter().map(|(raw, ..)| raw.clone()).collect();
            owner.give(&path, &paths, (like.uid, like.gid))?;
            left = later;
        }
    }
    for (raw, name, _) in made {
        put(&disk, &raw, &name).at("name", path.join(&name).display())?;
    }
    Ok(())
}

/// Removes a slot that was left half made.
fn discard(disk: &OwnedFd, name: &str, path: &Path) -> Result<(), DiskError> {
    match rustix::fs::unlinkat(disk, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("remove", path.join(name).display()),
    }
}

/// Takes the place of `to` in one step, which must be free.
fn put(from: &OwnedFd, name: &str, to: &str) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(from, name, from, to, RenameFlags::NOREPLACE)
}

/// Gives a new slot the owner, attributes and times of the directory it covers.
fn dress(disk: &OwnedFd, name: &str, under: &Path, like: Look) -> rustix::io::Result<()> {
    let under = rustix::fs::open(under, DIRECTORY, Mode::empty())?;
    let fresh = rustix::fs::openat(disk, name, DIRECTORY, Mode::empty())?;
    rustix::fs::fchown(&fresh, Some(Uid::from_raw(like.uid)), Some(Gid::from_raw(like.gid)))?;
    rustix::fs::fchmod(&fresh, Mode::from_raw_mode(like.mode))?;
    copy::own_xattrs(under.as_fd(), fresh.as_fd())?;
    rustix::fs::futimens(&fresh, &copy::times(&rustix::fs::fstat(&under)?))
}

/// What the slots of a disk hold beyond what is sealed below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing.
    Nothing,
    /// Something that can be sealed.
    Something,
    /// A slot has attributes that a new one above it could not be given.
    Peculiar,
}

/// Looks at the slots of the disk at `place`.
pub(super) fn content(
    place: &Place<'_>,
    sealed: &[SealedLayer],
    owner: Option<SubIds>,
) -> Result<Content, DiskError> {
    let path = place.path();
    let mut found = Content::Nothing;
    for slot in 0..MAX_SLOTS {
        let upper = path.join(format!("upper/{slot}"));
        let like = match look(&upper) {
            Err(DiskError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                break;
            }
            other => other?,
        };
        let names = copy::own_xattr_names(&upper).at("look at", upper.display())?;
        if owner.is_some() && !names.is_empty() {
            return Ok(Content::Peculiar);
        }
        let under = below(sealed, slot);
        let as_before = match &under {
            Some(under) => look(under)? == like && copy::same_own_xattrs(under, &upper),
            None => first_look(owner) == like && names.is_empty(),
        };
        // A directory that is closed even to its reader is not known to be empty.
        let empty = || std::fs::read_dir(&upper).is_ok_and(|mut entries| entries.next().is_none());
        if !as_before || !empty() {
            found = Content::Something;
        }
    }
    Ok(found)
}
