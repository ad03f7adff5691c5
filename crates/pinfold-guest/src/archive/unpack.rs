//! Unpacking below a directory, and nowhere else.
//!
//! Every path is walked from the directory's descriptor, component by component, without
//! following links: an archive that makes a link and then writes through it meets an error. Links
//! are made as they are; they are only names. Devices are refused.
//!
//! A file or link gets its name when it is whole: what had the name before is there until then,
//! and stays when the archive breaks off or the disk is full. Neither a directory nor a file takes
//! the place of the other.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use pinfold_proto::{ArchiveOptions, Archived};
use pinfold_sys::partial::{Partial, described};
use pinfold_types::{Error, ErrorCode, limits::MAX_PATH_BYTES, name::excerpt};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::header::{Entry, Reader, TarError, Type};
use crate::failure;

/// Directories whose times are set at the end.
const MAX_LATER: usize = 1 << 16;

/// Unpacks `archive` below `directory`.
///
/// # Errors
/// `bad_image` for an archive that is damaged or reaches outside, `too_large` beyond
/// `max_bytes`, `invalid_path` where a directory would replace something else or something else a
/// directory, `disk_full`. What was unpacked before stays.
pub fn unpack(
    archive: impl Read,
    directory: &Path,
    options: &ArchiveOptions,
) -> Result<Archived, Error> {
    let shown = directory.to_string_lossy();
    let failed = |error: io::Error| failure::on_path("unpack into", &shown, &error);
    if options.create {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let root: OwnedFd = std::fs::File::open(directory).map_err(failed)?.into();
    if !rustix::fs::fstat(&root).is_ok_and(|facts| is_dir(facts.st_mode)) {
        return Err(failed(Errno::NOTDIR.into()));
    }
    let mut reader = Reader::new(archive);
    let mut work = Unpacking {
        root,
        options,
        done: Archived::default(),
        parent: None,
        later: BTreeMap::new(),
        buffer: vec![0; 128 << 10],
    };
    while let Some(entry) = reader.entry().map_err(|error| damaged(&error))? {
        work.entry(&entry, &mut reader).map_err(|why| why.named(&shown, &entry.path))?;
    }
    reader.drain().map_err(|error| damaged(&error))?;
    work.finish();
    Ok(work.done)
}

fn damaged(error: &TarError) -> Error {
    Error::new(ErrorCode::BadImage, error.to_string())
}

fn is_dir(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

/// Why an entry was not unpacked.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error("{0}")]
    Refused(&'static str),
    #[error("is {there}; {new} cannot replace it")]
    Occupied { there: &'static str, new: &'static str },
    #[error("it passes the limit of {0} bytes")]
    TooMuch(u64),
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for EntryError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

impl EntryError {
    fn named(self, directory: &str, path: &[u8]) -> Error {
        let path = String::from_utf8_lossy(path);
        if matches!(self, Self::Occupied { .. }) {
            let whole = Path::new(directory).join(path.trim_start_matches('/'));
            let whole = excerpt(&whole.to_string_lossy());
            return Error::new(ErrorCode::InvalidPath, format!("{whole} {self}"))
                .hint("remove it first, or name another destination");
        }
        let path = excerpt(&path);
        match self {
            Self::System(error) => failure::on_path("unpack", &path, &error),
            Self::TooMuch(_) => Error::new(ErrorCode::TooLarge, format!("{path:?}: {self}")),
            Self::Tar(error) => Error::new(ErrorCode::BadImage, format!("{path:?}: {error}")),
            Self::Refused(_) | Self::Occupied { .. } => {
                Error::new(ErrorCode::BadImage, format!("the archive's entry {path:?} {self}"))
            }
        }
    }
}

/// The parts of a path below the directory, without `.`, a leading `/` and empty parts.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, EntryError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(EntryError::Refused("has a path longer than 4095 bytes"));
    }
    if path.contains(&0) {
        return Err(EntryError::Refused("has a NUL byte in its path"));
    }
    let parts: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.iter().any(|part| *part == b"..") {
        return Err(EntryError::Refused("has .. in its path"));
    }
    Ok(parts)
}

struct Unpacking<'a> {
    root: OwnedFd,
    options: &'a ArchiveOptions,
    done: Archived,
    /// The directory of the last entry, which is likely that of the next.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories and the times they get when nothing is written into them any more.
    later: BTreeMap<Vec<u8>, i64>,
    buffer: Vec<u8>,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), EntryError> {
        let parts = parts(&entry.path)?;
        let Some((name, above)) = parts.split_last() else {
            // The directory itself, as `./`: its facts are its owner's business.
            return match entry.kind {
                Type::Directory => Ok(()),
                _ => Err(EntryError::Refused("is named like the directory itself")),
            };
        };
        if entry.kind == Type::Device {
            return Err(EntryError::Refused("is a device"));
        }
        if entry.kind == Type::Fifo {
            self.done.skipped += 1;
            return Ok(());
        }
        let parent = self.directory(above)?;
        let name = *name;
        match entry.kind {
            Type::Directory => {
                let below = Self::make_dir(parent.as_fd(), name)?;
                self.facts(&below, entry)?;
                if self.options.times && self.later.len() < MAX_LATER {
                    self.later.insert(parts.join(&b'/'), entry.mtime);
                }
            }
            Type::File => {
                Self::must_be_replaceable(parent.as_fd(), name, "a file")?;
                let (partial, file) = Self::make_file(parent.as_fd())?;
                self.content(&file, entry.size, reader)?;
                self.facts(&file, entry)?;
                if self.options.times {
                    let _ = rustix::fs::futimens(&file, &times(entry.mtime));
                }
                partial.finish(name)?;
            }
            Type::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(EntryError::Refused("is a link without a target"));
                }
                Self::must_be_replaceable(parent.as_fd(), name, "a link")?;
                let (partial, ()) = Partial::make(parent.as_fd(), |_, free| {
                    rustix::fs::symlinkat(entry.link.as_slice(), &parent, free)
                })?;
                self.link_facts(parent.as_fd(), partial.name(), entry);
                partial.finish(name)?;
            }
            Type::HardLink => {
                let target = self::parts(&entry.link)?;
                let Some((old, above)) = target.split_last() else {
                    return Err(EntryError::Refused("is a hard link to the directory itself"));
                };
                let from = self.walk(above, false)?;
                if entry.link != entry.path {
                    Self::must_be_replaceable(parent.as_fd(), name, "a link")?;
                    let (partial, ()) = Partial::make(parent.as_fd(), |_, free| {
                        rustix::fs::linkat(&from, *old, &parent, free, AtFlags::empty())
                    })?;
                    partial.finish(name)?;
                }
            }
            Type::Device | Type::Fifo => {}
        }
        // Kept for the next entry.
        self.parent = Some((above.join(&b'/'), parent));
        self.done.entries += 1;
        Ok(())
    }

    fn directory(&mut self, above: &[&[u8]]) -> Result<OwnedFd, EntryError> {
        let place = above.join(&b'/');
        match self.parent.take() {
            Some((known, fd)) if known == place => Ok(fd),
            _ => self.walk(above, true),
        }
    }

    fn walk(&self, above: &[&[u8]], make: bool) -> Result<OwnedFd, EntryError> {
        let mut at = self.root.try_clone()?;
        for part in above {
            at = match crate::files::open_dir(at.as_fd(), *part) {
                Ok(below) => below,
                Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                    Self::make_dir(at.as_fd(), part)?
                }
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Err(EntryError::Refused(
                        "passes through something that is no directory",
                    ));
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(at)
    }

    fn make_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, EntryError> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        match crate::files::open_dir(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(there.st_mode) {
                    FileType::Symlink => {}
                    other => {
                        return Err(EntryError::Occupied {
                            there: described(other),
                            new: "a directory",
                        });
                    }
                }
                // A link in its place gives way, as tar does it; never what it points to.
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                Ok(crate::files::open_dir(parent, name)?)
            }
            opened => Ok(opened?),
        }
    }

    /// A new file under a name of its own: never one that another name or a link leads to.
    fn make_file(parent: BorrowedFd<'_>) -> Result<(Partial<BorrowedFd<'_>>, File), EntryError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (partial, fd) = Partial::make(parent, |parent, free| {
            rustix::fs::openat(parent, free, flags, Mode::from_raw_mode(0o600))
        })?;
        Ok((partial, fd.into()))
    }

    /// Says so before anything is written; a directory that comes later is safe from rename(2).
    fn must_be_replaceable(
        parent: BorrowedFd<'_>,
        name: &[u8],
        new: &'static str,
    ) -> Result<(), EntryError> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) if is_dir(facts.st_mode) => {
                Err(EntryError::Occupied { there: described(FileType::Directory), new })
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn content<R: Read>(
        &mut self,
        mut file: &File,
        size: u64,
        reader: &mut Reader<R>,
    ) -> Result<(), EntryError> {
        let total = self.done.bytes.saturating_add(size);
        if let Some(most) = self.options.max_bytes.filter(|most| total > *most) {
            return Err(EntryError::TooMuch(most));
        }
        let mut left = size;
        let mut content = reader.content(size);
        while left > 0 {
            let n = match content.read(&mut self.buffer) {
                Ok(0) => {
                    return Err(
                        TarError::from(io::Error::from(io::ErrorKind::UnexpectedEof)).into()
                    );
                }
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TarError::from(error).into()),
            };
            file.write_all(self.buffer.get(..n).unwrap_or_default())?;
            left = left.saturating_sub(n as u64);
        }
        drop(content);
        reader.skip_padding(size)?;
        self.done.bytes = total;
        Ok(())
    }

    /// Owner, mode, attributes; in this order, because a new owner clears setuid.
    fn facts(&self, file: impl AsFd, entry: &Entry) -> Result<(), EntryError> {
        if let Some((uid, gid)) = self.owner(entry) {
            // Owners outside the workspace's range stay root.
            let _ = rustix::fs::fchown(&file, Some(uid), Some(gid));
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        if self.options.xattrs {
            for (name, value) in entry.xattrs.iter().filter(|(name, _)| name.starts_with("user.")) {
                // Not every file system has them.
                let _ = rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty());
            }
        }
        Ok(())
    }

    fn link_facts(&self, parent: BorrowedFd<'_>, name: &str, entry: &Entry) {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((uid, gid)) = self.owner(entry) {
            let _ = rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags);
        }
        if self.options.times {
            let _ = rustix::fs::utimensat(parent, name, &times(entry.mtime), flags);
        }
    }

    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        if !self.options.owners {
            return None;
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        Some((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
    }

    /// Times of directories, deepest first.
    fn finish(&mut self) {
        for (place, mtime) in std::mem::take(&mut self.later).into_iter().rev() {
            let Ok(parts) = parts(&place) else { continue };
            if let Ok(directory) = self.walk(&parts, false) {
                let _ = rustix::fs::futimens(&directory, &times(mtime));
            }
        }
    }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
