//! Walking down by descriptors, never through a link.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fd::BorrowedFd,
    fs::{Mode, OFlags},
    path::Arg,
};

/// Opens a directory below `parent`; a symbolic link is `NotADirectory`.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: impl Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(rustix::io::Errno::LOOP) => Err(rustix::io::Errno::NOTDIR.into()),
        Err(errno) => Err(errno.into()),
    }
}
