//! Packing a path, without following links and without leaving sockets and devices in it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use pinfold_types::{Error, ErrorCode};
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

/// A path that is there.
#[derive(Debug)]
pub struct Source {
    shown: String,
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
    /// `not_found` and so on, naming the path.
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
        let parent =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed(errno.into()))?;
        let name = name.as_bytes().to_vec();
        Ok(Self { shown: path.to_owned(), parent, name, content })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When something cannot be read, or `out` has gone.
    pub fn pack(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut work = Packing { out, links: HashMap::new(), buffer: vec![0; 128 << 10] };
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
            .map_err(|error| on_path("pack", &self.shown, &error))
    }
}

struct Packing<'a, W> {
    out: &'a mut W,
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
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
                let view =
                    rustix::fs::fstatfs(&below).is_ok_and(|system| VIEWS.contains(&system.f_type));
                if view { Ok(()) } else { self.below(&below, path, depth + 1) }
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
