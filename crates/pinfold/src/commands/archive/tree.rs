//! A destination directory, written to only beneath its descriptor.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use pinfold_sys::partial::{Partial, described};
use pinfold_types::{Error, ErrorCode, Result, size::ByteSize};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
        fchmod, fstatvfs, futimens, linkat, mkdirat, openat, openat2, statat, symlinkat,
    },
    io::Errno,
};

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;
/// Zeros together that become a hole instead of being written.
const HOLE_BYTES: usize = 4096;

/// What an archive says about a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileFacts {
    /// Permission bits.
    pub(super) mode: u32,
    /// Modified, seconds since the epoch.
    pub(super) mtime: u64,
    /// Bytes of content.
    pub(super) size: u64,
}

/// The destination.
#[derive(Debug)]
pub(in super::super) struct Tree {
    root: Arc<OwnedFd>,
    shown: PathBuf,
    /// Directories whose mode and time are set at the end: a read-only one still has to be filled.
    directories: Vec<(Vec<Vec<u8>>, u32, u64)>,
    /// The last parent, because neighbours share it.
    parent: Option<(Vec<Vec<u8>>, Arc<OwnedFd>)>,
    buffer: Vec<u8>,
}

impl Tree {
    /// Opens `directory`, which exists, following links: it is the caller's own choice.
    pub(in super::super) fn open(directory: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, directory, flags, Mode::empty()).map_err(|errno| {
            if errno == Errno::NOENT {
                return no_directory(directory);
            }
            Error::new(
                ErrorCode::InvalidPath,
                format!("{} cannot be written to: {errno}", directory.display()),
            )
        })?;
        Ok(Self {
            root: Arc::new(root),
            shown: directory.to_owned(),
            directories: Vec::new(),
            parent: None,
            buffer: vec![0; COPY_BYTES],
        })
    }

    pub(super) fn directory(&mut self, path: &[Vec<u8>], mode: u32, mtime: u64) -> Result<()> {
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => match kind_of(&parent, name) {
                Some(FileType::Directory) => {}
                Some(there) => return Err(self.occupied(path, there, "a directory")),
                None => return Err(self.failed(path, Errno::EXIST)),
            },
            Err(errno) => return Err(self.failed(path, errno)),
        }
        self.directories.push((path.to_vec(), mode, mtime));
        Ok(())
    }

    /// A file of exactly `size` bytes.
    pub(super) fn file(
        &mut self,
        path: &[Vec<u8>],
        facts: &FileFacts,
        content: &mut impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        self.must_be_replaceable(&parent, path, "a file")?;
        self.must_fit(&parent, path, facts.size)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = Partial::make(Arc::clone(&parent), |parent, free| {
            openat(parent, free, flags, Mode::from_raw_mode(0o600)).map(File::from)
        });
        let (partial, file) = made.map_err(|errno| self.failed(path, errno))?;
        let mut sparse = Sparse { file, hole: false };
        let mut left = facts.size;
        loop {
            let count = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(super::broken(&error)),
            };
            if let Err(error) = sparse.write(&self.buffer[..count]) {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                return Err(self.failed(path, errno));
            }
            let count = u64::try_from(count).unwrap_or(0);
            left = left.saturating_sub(count);
            progress(count);
        }
        if left > 0 {
            return Err(super::broken(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        sparse
            .finish(facts.size)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|file| {
                fchmod(&file, Mode::from_raw_mode(facts.mode))?;
                futimens(&file, &times(facts.mtime))?;
                partial.finish(name)
            })
            .map_err(|errno| self.failed(path, errno))
    }

    pub(super) fn symlink(&mut self, path: &[Vec<u8>], target: &[u8]) -> Result<()> {
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        self.must_be_replaceable(&parent, path, "a link")?;
        Partial::make(Arc::clone(&parent), |parent, free| symlinkat(target, parent, free))
            .and_then(|(partial, ())| partial.finish(name))
            .map_err(|errno| self.failed(path, errno))
    }

    /// Both ends lie beneath the destination; a link to a symbolic link is not followed.
    pub(super) fn hard_link(&mut self, path: &[Vec<u8>], target: &[Vec<u8>]) -> Result<()> {
        let (old, old_parents) = split(target);
        let from = self.beneath(old_parents).map_err(|errno| self.failed(target, errno))?;
        let (name, parents) = split(path);
        let parent = self.parent(parents)?;
        self.must_be_replaceable(&parent, path, "a link")?;
        let link =
            |parent: BorrowedFd<'_>, free: &str| linkat(&from, old, parent, free, AtFlags::empty());
        Partial::make(Arc::clone(&parent), link)
            .and_then(|(partial, ())| partial.finish(name))
            .map_err(|errno| self.failed(path, errno))
    }

    /// Says so before anything is written; a directory that comes later is safe from rename(2).
    fn must_be_replaceable(&self, parent: &OwnedFd, path: &[Vec<u8>], new: &str) -> Result<()> {
        match kind_of(parent, split(path).0) {
            Some(FileType::Directory) => Err(self.occupied(path, FileType::Directory, new)),
            _ => Ok(()),
        }
    }

    /// A workspace can announce any size, and its holes cost it nothing.
    fn must_fit(&self, parent: &OwnedFd, path: &[Vec<u8>], size: u64) -> Result<()> {
        // What has no blocks at all does not say what is free.
        let Some(space) = fstatvfs(parent).ok().filter(|space| space.f_blocks > 0) else {
            return Ok(());
        };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if size <= free {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::DiskFull,
            format!(
                "{} has {}, and {} has {} free",
                self.place(path).display(),
                ByteSize(size),
                self.shown.display(),
                ByteSize(free)
            ),
        ))
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
    fn parent(&mut self, path: &[Vec<u8>]) -> Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some((_, parent)) = self.parent.as_ref().filter(|(known, _)| known == path) {
            return Ok(Arc::clone(parent));
        }
        let opened = match self.beneath(path) {
            Err(Errno::NOENT) => self.make(path),
            other => other,
        };
        let opened = Arc::new(opened.map_err(|errno| self.failed(path, errno))?);
        self.parent = Some((path.to_vec(), Arc::clone(&opened)));
        Ok(opened)
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

    fn place(&self, path: &[Vec<u8>]) -> PathBuf {
        self.shown.join(String::from_utf8_lossy(&path.join(&b'/')).into_owned())
    }

    fn occupied(&self, path: &[Vec<u8>], there: FileType, new: &str) -> Error {
        let there = described(there);
        let place = self.place(path);
        Error::new(
            ErrorCode::InvalidPath,
            format!("{} is {there}; {new} cannot replace it", place.display()),
        )
        .hint("remove it first, or name another destination")
    }

    fn failed(&self, path: &[Vec<u8>], errno: Errno) -> Error {
        let shown = self.place(path);
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

fn kind_of(parent: &OwnedFd, name: &[u8]) -> Option<FileType> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// The destination is not there.
pub(in super::super) fn no_directory(directory: &Path) -> Error {
    let shown = directory.display();
    Error::new(ErrorCode::NotFound, format!("there is no directory {shown}"))
        .hint(format!("make it: mkdir -p {shown}"))
}

/// A file whose long runs of zeros take no room.
struct Sparse {
    file: File,
    /// Whether it ends in a hole now, which only its length tells.
    hole: bool,
}

impl Sparse {
    fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.hole = data.len() >= HOLE_BYTES && data.iter().all(|byte| *byte == 0);
        if self.hole {
            let length = i64::try_from(data.len()).map_err(std::io::Error::other)?;
            self.file.seek(SeekFrom::Current(length)).map(|_| ())
        } else {
            self.file.write_all(data)
        }
    }

    fn finish(self, size: u64) -> std::io::Result<File> {
        if self.hole {
            self.file.set_len(size)?;
        }
        Ok(self.file)
    }
}

fn times(mtime: u64) -> Timestamps {
    let seconds = i64::try_from(mtime).unwrap_or(0);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}
