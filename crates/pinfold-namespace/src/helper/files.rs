//! Small files and directories that a root must have.

use std::{
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

use crate::failure::{AtStep, Failure, Step};

/// Makes the directory `path` (absolute, of the workspace's root) and its parents where missing.
/// What is there and is not a directory is refused.
pub(super) fn ensure_directory(path: &str, mode: u32) -> Result<(), Failure> {
    let missing = match rustix::fs::lstat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(()),
        Ok(_) => {
            return Err(Failure::said(Step::MountPoint, path, "the image has no directory there"));
        }
        Err(Errno::NOENT) => true,
        Err(error) => return Err(error).on(Step::MountPoint, path),
    };
    debug_assert!(missing);
    if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        ensure_directory(parent, 0o755)?;
    }
    rustix::fs::mkdir(path, Mode::from_raw_mode(mode)).on(Step::MountPoint, path)
}

/// `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`, where the image has none; a host name
/// that an earlier boot or a fork's source wrote is brought up to date.
pub(super) fn etc(hostname: &str) -> Result<(), Failure> {
    let etc = match rustix::fs::open(
        "/etc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(etc) => etc,
        // An image without /etc (a lone static binary) has nobody who would read these.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error).on(Step::EtcFile, "/etc"),
    };
    let wanted = format!("{hostname}\n");
    if read_short(&etc, "hostname").is_none_or(|found| found != wanted.as_bytes()) {
        write_file(&etc, "hostname", wanted.as_bytes(), OFlags::TRUNC)?;
    }
    let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    for (name, text) in [("hosts", hosts), ("resolv.conf", "nameserver 127.0.0.1\n")] {
        let found = rustix::fs::statat(&etc, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if matches!(found, Err(Errno::NOENT)) {
            write_file(&etc, name, text.as_bytes(), OFlags::EXCL)?;
        }
    }
    Ok(())
}

/// The first bytes of a regular file, or `None`.
fn read_short(directory: impl AsFd, name: &str) -> Option<Vec<u8>> {
    const ENOUGH: u64 = 256;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let mut found = Vec::new();
    std::fs::File::from(file).take(ENOUGH).read_to_end(&mut found).ok()?;
    Some(found)
}

fn write_file(directory: &OwnedFd, name: &str, content: &[u8], how: OFlags) -> Result<(), Failure> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC
        | how;
    match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => std::fs::File::from(file)
            .write_all(content)
            .on(Step::EtcFile, format_args!("/etc/{name}")),
        // A link, a directory or a pipe of the workspace's own making, or a read-only root:
        // its owner wanted it so.
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::EXIST | Errno::ROFS) => Ok(()),
        Err(error) => Err(error).on(Step::EtcFile, format_args!("/etc/{name}")),
    }
}

/// An empty file made to be mounted on.
pub(super) fn mount_point(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o666)).map(drop)
}
