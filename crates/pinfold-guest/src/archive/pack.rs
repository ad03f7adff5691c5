//! Packing a path, without following links and without leaving sockets and devices in it.
//!
//! Files of the kernel's views, as those of `/proc`, say nothing of their size: they are read to
//! their end before their header is written.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use pinfold_types::{Error, ErrorCode, name::excerpt};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::header::{self, BLOCK, Entry, Type};
use crate::{failure::on_path, files::open_dir};

/// Levels below the path: each is held open.
const MAX_DEPTH: usize = 256;
/// Files with several names that are remembered; later ones are packed once for each name.
const MAX_LINKS: usize = 1 << 16;
/// File systems that are views of the kernel, not content: proc, sysfs, devpts, cgroup.
const VIEWS: [i64; 5] = [0x9fa0, 0x6265_6572, 0x1cd1, 0x0027_e0eb, 0x6367_7270];

/// Most bytes of a file of such a view.
const MAX_VIEW_BYTES: u64 = 4 << 20;

/// A path that is there.
#[derive(Debug)]
pub struct Source {
    shown: String,
    /// What the archive's names are below.
    above: PathBuf,
    parent: OwnedFd,
    name: Vec<u8>,
    /// Only what is below, without the directory itself: the path ended in `/.` or was `/`.
    content: bool,
}

impl Source {
    /// Finds what to pack. The archive's names begin with the last part of the path; with `/.` at
    /// its end, or for `/`, they begin below it.
    ///
    /// # Errors
    /// `not_found` and so on, naming the path; `unprocessable` for a device, socket or pipe, and
    /// for a directory of a view of the kernel.
    pub fn open(path: &str) -> Result<Self, Error> {
        let failed = |error: io::Error| on_path("pack", path, &error);
        let plain = path.trim_end_matches('/');
        let (place, content) = match plain.strip_suffix("/.") {
            Some(directory) => (directory, true),
            None => (plain, plain.is_empty()),
        };
        let place = if place.is_empty() { "/" } else { place };
        let (parent, name) =
            match (content, Path::new(place).parent(), Path::new(place).file_name()) {
                (false, Some(parent), Some(name)) => (parent, name),
                (false, ..) => {
                    return Err(Error::new(
                        ErrorCode::InvalidPath,
                        format!("{path:?} has no name to pack it under"),
                    )
                    .hint("name a file or directory, without .. at the end"));
                }
                (true, ..) => (Path::new(place), OsStr::new(".")),
            };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = parent.to_owned();
        let parent =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let facts = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed(errno.into()))?;
        let refused =
            |why: &str| Error::new(ErrorCode::Unprocessable, format!("{:?} {why}", excerpt(path)));
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::RegularFile | FileType::Symlink => {}
            FileType::Directory => {
                let below = open_dir(parent.as_fd(), name).map_err(failed)?;
                if is_view(&below) {
                    return Err(refused("is a view of the kernel, not a directory of files")
                        .hint("copy single files of it"));
                }
            }
            FileType::Fifo => return Err(refused("is a pipe: it has no content to copy")),
            FileType::Socket => return Err(refused("is a socket: it has no content to copy")),
            _ => return Err(refused("is a device: it has no content to copy")),
        }
        let name = name.as_bytes().to_vec();
        Ok(Self { shown: path.to_owned(), above, parent, name, content })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When something cannot be read, or `out` has gone.
    pub fn pack(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut work =
            Packing { out, links: HashMap::new(), buffer: vec![0; 128 << 10], failed_at: None };
        let result = if self.content {
            open_dir(self.parent.as_fd(), ".")
                .and_then(|directory| work.below(&directory, &mut Vec::new(), 0))
        } else {
            let mut path = self.name.clone();
            work.one(self.parent.as_fd(), &self.name, &mut path, 0)
        };
        result
            .and_then(|()| work.out.write_all(&[0; 2 * BLOCK]))
            .and_then(|()| work.out.flush())
            .map_err(|error| {
                let whole = work.failed_at.take().map(|at| self.above.join(OsStr::from_bytes(&at)));
                let shown = whole.map_or_else(
                    || self.shown.clone(),
                    |whole| whole.to_string_lossy().into_owned(),
                );
                let mut said = on_path("read", &shown, &error);
                if Errno::from_io_error(&error) == Some(Errno::IO) {
                    // The file's own answer, as of /proc/PID/mem: no fault of ours.
                    said.code = ErrorCode::Unprocessable;
                }
                said
            })
    }
}

struct Packing<'a, W> {
    out: &'a mut W,
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    /// The deepest entry that could not be packed.
    failed_at: Option<Vec<u8>>,
}

impl<W: Write> Packing<'_, W> {
    fn below(&mut self, directory: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.one(directory.as_fd(), name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn one(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        self.entry(parent, name, path, depth).inspect_err(|_| {
            self.failed_at.get_or_insert_with(|| path.clone());
        })
    }

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        let facts = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => facts,
            // Removed since it was listed.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Directory => {
                let below = open_dir(parent, name)?;
                header::write(
                    self.out,
                    &entry(Type::Directory, [&path[..], b"/"].concat(), &facts),
                )?;
                if is_view(&below) { Ok(()) } else { self.below(&below, path, depth + 1) }
            }
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let mut link = entry(Type::Symlink, path.clone(), &facts);
                link.link = target.into_bytes();
                header::write(self.out, &link)
            }
            FileType::Fifo => header::write(self.out, &entry(Type::Fifo, path.clone(), &facts)),
            // Sockets live with their process, devices belong to the machine.
            _ => Ok(()),
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let facts = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        if facts.st_nlink > 1 {
            let identity = (facts.st_dev, facts.st_ino);
            if let Some(first) = self.links.get(&identity) {
                let mut link = entry(Type::HardLink, path.to_vec(), &facts);
                link.link.clone_from(first);
                return header::write(self.out, &link);
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(identity, path.to_vec());
            }
        }
        // No blocks: empty, all holes, or made up by the kernel as it is read.
        if facts.st_blocks == 0 && is_view(&file) {
            return self.view(file, path, &facts);
        }
        let size = u64::try_from(facts.st_size).unwrap_or(0);
        let mut made = entry(Type::File, path.to_vec(), &facts);
        made.size = size;
        header::write(self.out, &made)?;
        // Exactly as much as the header says, whatever happens to the file meanwhile.
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let space = self.buffer.get_mut(..most).unwrap_or_default();
            let n = match file.read(space) {
                Ok(0) => {
                    space.fill(0);
                    most
                }
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.out.write_all(self.buffer.get(..n).unwrap_or_default())?;
            left = left.saturating_sub(n as u64);
        }
        header::pad(self.out, size)
    }

    fn view(&mut self, file: File, path: &[u8], facts: &Stat) -> io::Result<()> {
        let mut content = Vec::new();
        file.take(MAX_VIEW_BYTES + 1).read_to_end(&mut content)?;
        let size = content.len() as u64;
        if size > MAX_VIEW_BYTES {
            return Err(Errno::FBIG.into());
        }
        let mut made = entry(Type::File, path.to_vec(), facts);
        made.size = size;
        header::write(self.out, &made)?;
        self.out.write_all(&content)?;
        header::pad(self.out, size)
    }
}

fn is_view(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| VIEWS.contains(&system.f_type))
}

fn entry(kind: Type, path: Vec<u8>, facts: &Stat) -> Entry {
    Entry {
        kind,
        path,
        link: Vec::new(),
        mode: facts.st_mode & 0o7777,
        uid: u64::from(facts.st_uid),
        gid: u64::from(facts.st_gid),
        size: 0,
        mtime: facts.st_mtime,
        xattrs: Vec::new(),
    }
}
