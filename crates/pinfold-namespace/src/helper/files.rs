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
    let hosts = format!("{HOSTS}127.0.1.1 {hostname}\n");
    let found = read_short(&etc, "hosts");
    if found.as_deref().is_some_and(|found| found != hosts.as_bytes() && is_ours(found)) {
        write_file(&etc, "hosts", hosts.as_bytes(), OFlags::TRUNC)?;
    }
    for (name, text) in [("hosts", hosts.as_str()), ("resolv.conf", "nameserver 127.0.0.1\n")] {
        let found = rustix::fs::statat(&etc, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if matches!(found, Err(Errno::NOENT)) {
            write_file(&etc, name, text.as_bytes(), OFlags::EXCL)?;
        }
    }
    Ok(())
}

/// How every `/etc/hosts` of ours begins. The last line gives the workspace's own name an address
/// that is not that of `localhost`, as Debian does (its reference manual, "The hostname
/// resolution").
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// Whether `/etc/hosts` is as an earlier boot, perhaps of a fork's parent, wrote it.
fn is_ours(found: &[u8]) -> bool {
    let Some(own) = found.strip_prefix(HOSTS.as_bytes()) else { return false };
    own.is_empty()
        || (own.starts_with(b"127.0.1.1 ")
            && own.iter().position(|c| *c == b'\n') == Some(own.len() - 1))
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
