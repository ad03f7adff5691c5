//! Walking a directory tree that somebody else filled: every step is opened below the top and
//! follows no link, and a path may be longer than the kernel takes at once.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, RawDir, ResolveFlags},
    io::Result,
};

/// How directories are opened, to be read and as places to open others from.
pub const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// Most bytes of the list of names, and of one value, of extended attributes (xattr(7)).
pub const MAX_XATTR_BYTES: usize = 64 << 10;
/// Longest part of a path given to the kernel at once.
const MAX_STEP_BYTES: usize = 2048;

/// The path of `name` in `directory`, both relative; an empty directory is the top.
pub fn join(directory: &CStr, name: &CStr) -> CString {
    let mut path = directory.to_bytes().to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    CString::new(path).expect("made of two strings without NUL")
}

/// Opens the directory at `path` below `root`, in steps that fit into `PATH_MAX`, following no
/// link (`openat2`(2), `RESOLVE_BENEATH`).
pub fn beneath(root: &OwnedFd, path: &CStr) -> Result<OwnedFd> {
    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |at: BorrowedFd<'_>, step: &[u8]| {
        rustix::fs::openat2(at, step, DIRECTORY, Mode::empty(), confined)
    };
    let mut rest = path.to_bytes();
    let mut at = open(root.as_fd(), b".")?;
    while !rest.is_empty() {
        let step = match rest.get(..MAX_STEP_BYTES) {
            None => rest.len(),
            Some(part) => part.iter().rposition(|byte| *byte == b'/').unwrap_or(rest.len()),
        };
        at = open(at.as_fd(), &rest[..step])?;
        rest = rest.get(step + 1..).unwrap_or_default();
    }
    Ok(at)
}

/// Calls `what` with each name in a directory, `.` and `..` left out.
pub fn each(directory: &OwnedFd, mut what: impl FnMut(&CStr) -> Result<()>) -> Result<()> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            what(entry.file_name())?;
        }
    }
    Ok(())
}
