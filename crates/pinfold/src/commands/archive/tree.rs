//! A destination directory, written to only beneath its descriptor.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use pinfold_types::{Error, ErrorCode, Result};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
        fchmod, futimens, linkat, mkdirat, openat, openat2, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// The destination.
#[derive(Debug)]
pub(in super::super) struct Tree {
    root: OwnedFd,
    shown: PathBuf,
    /// Directories whose mode and time are set at the end: a read-only one still has to be filled.
    directories: Vec<(Vec<Vec<u8>>, u32, u64)>,
    /// The last parent, because neighbours share it.
    parent: Option<(Vec<Vec<u8>>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Tree {
    /// Opens `directory`, which exists, following links: it is the caller's own choice.
    pub(in super::super) fn open(directory: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, directory, flags, Mode::empty()).map_err(|errno| {
            Error::new(
                ErrorCode::InvalidPath,
                format!("{} cannot be written to: {errno}", directory.display()),
            )
        })?;
        Ok(Self {
            root,
            shown: directory.to_owned(),
            directories: Vec::new(),
            parent: None,
            buffer: vec![0; COPY_BYTES],
        })
    }

    pub(super) fn directory(&mut self, path: &[Vec<u8>], mode: u32, mtime: u64) -> Result<()> {
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) if is_directory(parent, name) => {}
            Err(errno) => return Err(self.failed(path, errno)),
        }
        self.directories.push((path.to_vec(), mode, mtime));
        Ok(())
    }

    pub(super) fn file(
        &mut self,
        path: &[Vec<u8>],
        mode: u32,
        mtime: u64,
        content: &mut impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        replace(parent, name).map_err(|errno| self.failed(path, errno))?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.parent(parents)?;
        let opened = openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(opened.map_err(|errno| self.failed(path, errno))?);
        loop {
            let count = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(super::broken(&error)),
            };
            if let Err(error) = file.write_all(&self.buffer[..count]) {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                return Err(self.failed(path, errno));
            }
            progress(u64::try_from(count).unwrap_or(0));
        }
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(|errno| self.failed(path, errno))?;
        futimens(&file, &times(mtime)).map_err(|errno| self.failed(path, errno))
    }

    pub(super) fn symlink(&mut self, path: &[Vec<u8>], target: &[u8]) -> Result<()> {
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        let made = replace(parent, name).and_then(|()| symlinkat(target, parent, name));
        made.map_err(|errno| self.failed(path, errno))
    }

    /// Both ends lie beneath the destination; a link to a symbolic link is not followed.
    pub(super) fn hard_link(&mut self, path: &[Vec<u8>], target: &[Vec<u8>]) -> Result<()> {
        let (old, old_parents) = split(target);
        let from = self.beneath(old_parents).map_err(|errno| self.failed(target, errno))?;
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        let made =
            replace(parent, name).and_then(|()| linkat(&from, old, parent, name, AtFlags::empty()));
        made.map_err(|errno| self.failed(path, errno))
    }

    /// Gives directories their modes and times, deepest first.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.parent = None;
        for (path, mode, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            let opened = self.open_beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY);
            let set = opened.and_then(|directory| {
                fchmod(&directory, Mode::from_raw_mode(mode))?;
                futimens(&directory, &times(mtime))
            });
            set.map_err(|errno| self.failed(&path, errno))?;
        }
        Ok(())
    }

    /// The directory that holds an entry, made where it is missing.
    fn parent(&mut self, path: &[Vec<u8>]) -> Result<BorrowedFd<'_>> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        let known = self.parent.as_ref().is_some_and(|(known, _)| known == path);
        if !known {
            let opened = match self.beneath(path) {
                Err(Errno::NOENT) => self.make(path),
                other => other,
            };
            let opened = opened.map_err(|errno| self.failed(path, errno))?;
            self.parent = Some((path.to_vec(), opened));
        }
        Ok(self.parent.as_ref().expect("it was just set").1.as_fd())
    }

    fn make(&self, path: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        for depth in 1..=path.len() {
            let (name, parents) = split(&path[..depth]);
            let parent = self.beneath(parents)?;
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.beneath(path)
    }

    fn beneath(&self, path: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        self.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn open_beneath(&self, path: &[Vec<u8>], flags: OFlags) -> Result<OwnedFd, Errno> {
        let joined = if path.is_empty() { b".".to_vec() } else { path.join(&b'/') };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, joined, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn failed(&self, path: &[Vec<u8>], errno: Errno) -> Error {
        let name = String::from_utf8_lossy(&path.join(&b'/')).into_owned();
        let shown = self.shown.join(name);
        let code = match errno {
            Errno::NOSPC | Errno::DQUOT => ErrorCode::DiskFull,
            _ => ErrorCode::InvalidPath,
        };
        let error = Error::new(code, format!("{} cannot be written: {errno}", shown.display()));
        match errno {
            Errno::LOOP | Errno::XDEV => error.hint("a link is in the way; links are not followed"),
            _ => error,
        }
    }
}

fn split(path: &[Vec<u8>]) -> (&[u8], &[Vec<u8>]) {
    let (name, parents) = path.split_last().expect("a place has at least one part");
    (name, parents)
}

/// Makes room for a new file or link; a directory stays and makes it fail.
fn replace(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn is_directory(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn times(mtime: u64) -> Timestamps {
    let seconds = i64::try_from(mtime).unwrap_or(0);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}
