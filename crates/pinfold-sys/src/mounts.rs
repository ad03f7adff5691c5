//! `mount_setattr(2)`: the one call of the mount API that rustix lacks.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Read-only.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// Setuid bits and file capabilities have no effect.
pub const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Device nodes cannot be opened.
pub const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
/// Nothing can be executed.
pub const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Sets attributes on the mount at the root of `tree`, and the id mapping of `mapping` (a user
/// namespace's descriptor) when given. With `mapping` the tree must be detached and not yet
/// mapped (Linux 5.12).
pub fn set_attributes(
    tree: BorrowedFd<'_>,
    set: u64,
    mapping: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attributes =
        libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(mapping) = mapping {
        attributes.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = u64::try_from(mapping.as_raw_fd()).unwrap_or(u64::MAX);
    }
    // SAFETY: the path is an empty NUL-terminated string, the structure outlives the call and
    // its size is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw mut attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
