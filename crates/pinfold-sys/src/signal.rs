//! Learning of signals through a descriptor. Man page: signalfd(2).

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// Readable when a child has ended. `SIGCHLD` is blocked from then on, in this thread and those it
/// starts.
#[derive(Debug)]
pub struct ChildSignals(OwnedFd);

impl ChildSignals {
    /// Blocks `SIGCHLD` and opens the descriptor, non-blocking. Call it before other threads exist.
    ///
    /// # Errors
    /// What `sigprocmask` or `signalfd` says.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the set is plain memory that the calls fill and read; the descriptor is new and
        // owned by nobody else.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            let masked = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
            if masked != 0 {
                return Err(io::Error::from_raw_os_error(masked));
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Takes what is pending. Several ended children may be one signal: reap until none is left.
    pub fn clear(&self) {
        let mut space = [0_u8; 8 * mem::size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.0, &mut space).is_ok_and(|n| n == space.len()) {}
    }
}

impl AsFd for ChildSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for ChildSignals {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One process.
    Process(i32),
    /// A process group.
    Group(i32),
    /// Every process the caller may signal, itself and PID 1 excepted.
    Everyone,
}

/// Sends any signal, real-time ones too; 0 only asks whether the target exists. Man page: kill(2).
///
/// # Errors
/// `InvalidInput` for ids below 2 (1 is every namespace's init, 0 and -1 mean others), else what
/// `kill` says.
pub fn send(target: Target, signal: i32) -> io::Result<()> {
    let number = match target {
        Target::Process(pid) if pid > 1 => pid,
        Target::Group(group) if group > 1 => -group,
        Target::Everyone => -1,
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    // SAFETY: two numbers.
    if unsafe { libc::kill(number, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
