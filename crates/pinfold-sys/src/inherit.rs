//! Descriptors that a process was born with.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicU32, Ordering},
};

/// Which numbers were taken already.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Takes over descriptor `number`, which the parent left open by agreement, and marks it to be
/// closed on exec.
///
/// # Errors
/// When it is not open, below 3, above 31, or taken before.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if !(3..32).contains(&number) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let bit = 1_u32 << number;
    if TAKEN.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    // SAFETY: fcntl on a number; it fails when nothing is open there.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and handed out once only. Inherited by agreement, so nothing in this process
    // opened it and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on. For the first lines of a process, which then holds
/// only what its parent gave it by agreement.
///
/// # Errors
/// When `first` is below 3, or the kernel has no `close_range(2)`.
pub fn close_from(first: RawFd) -> io::Result<()> {
    if first < 3 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: called before anything in this process has opened a descriptor, as documented; an
    // owner that disagrees would see EBADF, not another file, until numbers are reused.
    if unsafe { libc::syscall(libc::SYS_close_range, first, RawFd::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
