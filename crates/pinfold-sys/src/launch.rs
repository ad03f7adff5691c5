//! Processes made by a single-threaded helper: `clone3(2)`, signals, `execveat(2)`, `_exit(2)`.

use std::{
    ffi::CStr,
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Proof that the calling process has one thread, which makes a copy of it whole.
///
/// Not `Send`, so that it stays on that thread. Code that holds one must start no thread.
#[derive(Clone, Copy, Debug)]
pub struct SingleThreaded(PhantomData<*mut ()>);

impl SingleThreaded {
    /// Counts `/proc/self/task`; an error when there are more threads than one.
    pub fn check() -> io::Result<Self> {
        if std::fs::read_dir("/proc/self/task")?.count() == 1 {
            Ok(Self(PhantomData))
        } else {
            Err(io::Error::other("this process has more than one thread"))
        }
    }
}

/// What a child gets of its own, beyond a copy of the caller: the kernel's `CLONE_*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnNamespaces(u64);

impl OwnNamespaces {
    /// Nothing: a plain copy.
    pub const NONE: Self = Self(0);
    /// User namespace.
    pub const USER: Self = Self(flag(libc::CLONE_NEWUSER));
    /// Mount namespace.
    pub const MOUNT: Self = Self(flag(libc::CLONE_NEWNS));
    /// Process ids; the child is PID 1.
    pub const PID: Self = Self(flag(libc::CLONE_NEWPID));
    /// Network.
    pub const NET: Self = Self(flag(libc::CLONE_NEWNET));
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(flag(libc::CLONE_NEWIPC));
    /// Host name.
    pub const UTS: Self = Self(flag(libc::CLONE_NEWUTS));
    /// The view of cgroups, rooted at the caller's present ones.
    pub const CGROUP: Self = Self(flag(libc::CLONE_NEWCGROUP));
    /// Monotonic and boot clocks.
    pub const TIME: Self = Self(flag(libc::CLONE_NEWTIME));

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `other` is in `self`.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

#[expect(clippy::cast_sign_loss, reason = "CLONE_* constants are positive")]
const fn flag(bit: libc::c_int) -> u64 {
    bit as u64
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Cloned {
    /// The caller, with the child's pid and a handle that cannot come to mean another process.
    Parent {
        /// Child, as the caller sees it.
        pid: i32,
        /// Its pidfd (close-on-exec).
        pidfd: OwnedFd,
    },
    /// The child.
    Child,
}

/// Copies the calling process, as fork(2) does, with `own` namespaces; straight into a cgroup of
/// the v2 hierarchy when one is given (clone3(2), Linux 5.7).
pub fn clone_process(
    _proof: SingleThreaded,
    own: OwnNamespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: `clone_args` is plain data for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = own.0 | flag(libc::CLONE_PIDFD);
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = flag(libc::SIGCHLD);
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(u64::MAX);
    }
    // SAFETY: no CLONE_VM and no stack, so the child runs on its own copy of this stack; the
    // token shows that no other thread holds a lock that the copy would inherit. The size is
    // that of the structure passed, and `pidfd` outlives the call.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<libc::clone_args>())
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent {
            pid: i32::try_from(pid).expect("pids fit in 32 bits"),
            // SAFETY: the kernel stored a new descriptor there, owned by nobody else.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Moves the calling process into fresh namespaces (unshare(2)); a pid or time namespace is for
/// its children only.
pub fn unshare(own: OwnNamespaces) -> io::Result<()> {
    let flags = libc::c_int::try_from(own.0).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: namespace flags only, by the type: no memory or descriptor becomes shared.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the process at once, without destructors or exit handlers: the only right way out of a
/// copy made by [`clone_process`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Lets the kernel reap children at their exit (sigaction(2), `SA_NOCLDWAIT`).
pub fn reap_children_automatically() -> io::Result<()> {
    set_disposition(libc::SIGCHLD, libc::SA_NOCLDWAIT)
}

/// Default disposition for every signal and an empty mask: what a program expects at its start,
/// whatever the processes before this one ignored or blocked.
pub fn default_signals() -> io::Result<()> {
    /// What the kernel takes for `SIG_DFL` with no flags: handler, flags, restorer, mask.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // By the raw call, because libc hides the two signals it keeps for itself.
        // SAFETY: the kernel reads one `struct kernel_sigaction` of zeroes, which installs no
        // handler, and writes nothing.
        let done = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                MASK_BYTES,
            )
        };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: an all-zero sigset_t is a valid empty set on Linux, and the call copies it.
    let done = unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_disposition(signal: libc::c_int, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: zeroed sigaction is SIG_DFL with an empty mask; no handler of ours is installed,
    // so nothing can be called asynchronously.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = flags;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Replaces the process by the program open as `program`, with one argument and no environment
/// (execveat(2), `AT_EMPTY_PATH`). Returns only on failure.
pub fn exec_descriptor(program: BorrowedFd<'_>, name: &CStr) -> io::Error {
    let argv = [name.as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: both arrays end with a null pointer, all strings are NUL-terminated and outlive
    // the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Makes `low..` close-on-exec (`close_range(2)`), so that nothing but the named descriptors
/// crosses an exec.
pub fn close_on_exec_from(low: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only marks descriptors; no descriptor is closed under its owner.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, low, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts a duplicate of `from` at exactly the number `to`, not close-on-exec (dup2(2)). Whatever
/// had that number before is closed.
///
/// For the last steps before an exec, in a process that leaves only by exec or [`exit_now`]:
/// an owner of the old `to` in this process is then never dropped.
pub fn place_descriptor(_proof: SingleThreaded, from: BorrowedFd<'_>, to: i32) -> io::Result<()> {
    // SAFETY: the caller's process leaves by exec or _exit, so no owner of `to` runs its Drop
    // on the replaced descriptor.
    let done = unsafe {
        if from.as_raw_fd() == to {
            libc::fcntl(to, libc::F_SETFD, 0)
        } else {
            libc::dup2(from.as_raw_fd(), to)
        }
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
