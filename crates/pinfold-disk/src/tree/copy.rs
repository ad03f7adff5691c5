//! Copies of directory trees with everything overlay needs kept: owners, modes, times, extended
//! attributes, hard links, symbolic links, whiteouts, holes. Data is shared where it can be.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use pinfold_sys::tree::{MAX_XATTR_BYTES, beneath, each, join};
use rustix::{
    fs::{
        AtFlags, Dev, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::Errno,
};

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) reflink: bool,
    /// Files that vanish while they are copied are left out.
    pub(crate) live: bool,
}

/// Copies what is in `from` into the empty directory `to`, and its attributes onto it.
pub(crate) fn tree(from: &OwnedFd, to: &OwnedFd, manner: Manner) -> io::Result<()> {
    let mut copier =
        Copier { from, to, manner, links: HashMap::new(), waiting: vec![CString::default()] };
    while let Some(directory) = copier.waiting.pop() {
        match copier.directory(&directory) {
            Err(error) if manner.live && error == Errno::NOENT => {}
            other => other?,
        }
    }
    Ok(())
}

/// Bytes on the disk and the number of files and directories below `directory`.
pub(crate) fn measure(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let (mut bytes, mut inodes) = (0_u64, 0_u64);
    let mut seen = std::collections::HashSet::new();
    let mut waiting = vec![CString::default()];
    while let Some(path) = waiting.pop() {
        let open = match beneath(directory, &path) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        each(&open, |name| {
            let stat = match rustix::fs::statat(&open, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(()),
                other => other?,
            };
            if stat.st_nlink == 1 || is_directory(&stat) || seen.insert(stat.st_ino) {
                inodes += 1;
                bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
            }
            if is_directory(&stat) {
                waiting.push(join(&path, name));
            }
            Ok(())
        })?;
    }
    Ok((bytes, inodes))
}

struct Copier<'a> {
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    manner: Manner,
    /// Where the first name of each file with several lies in the copy.
    links: HashMap<u64, CString>,
    /// Directories to be copied, by path from the top. Their own entry is made already.
    waiting: Vec<CString>,
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

impl Copier<'_> {
    fn directory(&mut self, path: &CStr) -> rustix::io::Result<()> {
        let from = beneath(self.from, path)?;
        let to = beneath(self.to, path)?;
        let stat = rustix::fs::fstat(&from)?;
        let mut below = Vec::new();
        each(&from, |name| match self.entry(&from, &to, path, name) {
            Ok(directory) => {
                below.extend(directory);
                Ok(())
            }
            Err(Errno::NOENT) if self.manner.live => Ok(()),
            Err(error) => Err(error),
        })?;
        self.waiting.append(&mut below);
        copy_xattrs(from.as_fd(), to.as_fd())?;
        owner_and_mode(to.as_fd(), &stat)?;
        // Last: every entry of this directory is made, and its times are not touched again.
        rustix::fs::futimens(&to, &times(&stat))
    }

    /// Copies one entry; answers its path when it is a directory, whose contents are to follow.
    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        path: &CStr,
        name: &CStr,
    ) -> rustix::io::Result<Option<CString>> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            return Ok(Some(join(path, name)));
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                return self.link(first, to, name).map(|()| None);
            }
            self.links.insert(stat.st_ino, join(path, name));
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, &stat)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            }
            // Whiteouts are character devices 0:0; the pool is mounted nodev or its directory is
            // closed to all, and no other device can be made in a workspace.
            kind => rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev as Dev)?,
        }
        if kind != FileType::RegularFile {
            named_attributes(to, name, &stat)?;
        }
        Ok(None)
    }

    fn link(&self, first: &CStr, to: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        let bytes = first.to_bytes();
        let (directory, file) = match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (CString::new(&bytes[..at]).expect("part of a string"), &bytes[at + 1..]),
            None => (CString::default(), bytes),
        };
        let directory = beneath(self.to, &directory)?;
        rustix::fs::linkat(&directory, file, to, name, AtFlags::empty())
    }

    fn file(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> rustix::io::Result<()> {
        let source = rustix::fs::openat(
            from,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Mode::empty(),
        )?;
        let target = rustix::fs::openat(
            to,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )?;
        if stat.st_size > 0 {
            let shared = self.manner.reflink && rustix::fs::ioctl_ficlone(&target, &source).is_ok();
            if !shared {
                copy_data(&source, &target, stat.st_size)?;
            }
        }
        owner_and_mode(target.as_fd(), stat)?;
        // After the owner: changing it would strip file capabilities.
        copy_xattrs(source.as_fd(), target.as_fd())?;
        rustix::fs::futimens(&target, &times(stat))
    }
}

/// Copies the data between the holes.
fn copy_data(from: &OwnedFd, to: &OwnedFd, size: i64) -> rustix::io::Result<()> {
    let size = u64::try_from(size).unwrap_or(0);
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            other => other?,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(begin))?.min(size);
        let (mut read, mut write) = (begin, begin);
        while read < end {
            let length = usize::try_from(end - read).unwrap_or(usize::MAX).min(1 << 30);
            let done =
                rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), length)?;
            if done == 0 {
                // It was cut short while it was read.
                return Ok(());
            }
        }
        at = end;
    }
    Ok(())
}

pub(super) fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn owner_and_mode(file: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode))
}

/// Attributes of what cannot be opened: links, whiteouts, sockets, pipes.
fn named_attributes(to: &OwnedFd, name: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = [0_u8; 4096];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => length,
        Err(Errno::RANGE) => return copy_many_xattrs(from, to),
        Err(error) => return Err(error),
    };
    copy_named_xattrs(from, to, &names[..length])
}

fn copy_many_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0_u8; MAX_XATTR_BYTES];
    let length = rustix::fs::flistxattr(from, &mut names[..])?;
    copy_named_xattrs(from, to, &names[..length])
}

fn copy_named_xattrs(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    names: &[u8],
) -> rustix::io::Result<()> {
    let mut value = vec![0_u8; MAX_XATTR_BYTES];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = match rustix::fs::fgetxattr(from, name, &mut value[..]) {
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

/// Attributes that overlay keeps for itself on a directory of one layer.
fn is_own(name: &[u8]) -> bool {
    !name.is_empty()
        && !name.starts_with(b"user.overlay.")
        && !name.starts_with(b"trusted.overlay.")
}

/// Names of the attributes that a workspace gave the directory at `path`.
pub(super) fn own_xattr_names(path: &std::path::Path) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = vec![0_u8; MAX_XATTR_BYTES];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut own: Vec<Vec<u8>> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| is_own(name))
        .map(<[u8]>::to_vec)
        .collect();
    own.sort_unstable();
    Ok(own)
}

/// Whether two directories have the same attributes from their workspace.
pub(super) fn same_own_xattrs(one: &std::path::Path, other: &std::path::Path) -> bool {
    let values = |path: &std::path::Path| -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut value = vec![0_u8; MAX_XATTR_BYTES];
        let read = |name: Vec<u8>| {
            let length = rustix::fs::lgetxattr(path, name.as_slice(), &mut value[..])?;
            Ok((name, value[..length].to_vec()))
        };
        own_xattr_names(path)?.into_iter().map(read).collect()
    };
    matches!((values(one), values(other)), (Ok(one), Ok(other)) if one == other)
}

/// Copies the attributes that a workspace gave a directory.
pub(super) fn own_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0_u8; MAX_XATTR_BYTES];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let own: Vec<&[u8]> =
        names[..length].split(|byte| *byte == 0).filter(|name| is_own(name)).collect();
    copy_named_xattrs(from, to, &own.join(&0))
}
