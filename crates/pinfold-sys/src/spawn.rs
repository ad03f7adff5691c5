//! Starting a process without copying the caller's address space.
//!
//! `clone(CLONE_VM | CLONE_VFORK)` on a stack of its own: the child borrows the caller's memory
//! until it executes the program, and the calling thread sleeps meanwhile. A plain `fork` of a
//! process with gigabytes of memory takes tens of milliseconds; this takes as long as the
//! `execve`. The child makes system calls only; whatever needs an allocation is prepared before.
//! Man pages: clone(2), vfork(2), execve(2), setsid(2), `ioctl_tty(2)`, `close_range(2)`.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_ulong, c_void},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// How the child relates to the caller's session and process group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// Stays in the caller's.
    #[default]
    Inherit,
    /// Leads a process group of its own.
    NewGroup,
    /// Leads a session of its own, without a terminal.
    NewSession,
    /// Leads a session whose controlling terminal is descriptor 0.
    Terminal,
}

/// Identity to take on, in this order: groups, group, user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user.
    pub uid: u32,
    /// Real, effective and saved group.
    pub gid: u32,
    /// Supplementary groups; all others are dropped.
    pub groups: Vec<u32>,
}

/// A resource limit to set: `RLIMIT_*`, soft, hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which, a `RLIMIT_*` number.
    pub resource: u32,
    /// Soft value.
    pub soft: u64,
    /// Hard value.
    pub hard: u64,
}

/// When memory runs out, the kernel kills what has the most after `oom_score_adj` is added
/// (proc(5)). A process whose program nobody may read can not open that file of its own or of a
/// child that shares its memory; so it takes on the child's score for the instant of the clone,
/// and the child's first act is to put the caller's back.
#[derive(Clone, Copy, Debug)]
pub struct FirstToGo<'a> {
    /// The caller's own `oom_score_adj`, open for writing.
    pub own: BorrowedFd<'a>,
    /// The caller's score, -1000 to 1000.
    pub score: i16,
    /// The child's and its children's: not below the caller's.
    pub child: i16,
}

/// What to start. Every descriptor that is not named in `fds` is closed in the child.
#[derive(Debug, Default)]
pub struct Spawn<'a> {
    /// Programs to try in order, as `execvp` does with `PATH`: the first that exists and may be
    /// executed runs. At most a few dozen.
    pub programs: Vec<CString>,
    /// Arguments, the program's own name first.
    pub arguments: Vec<CString>,
    /// `NAME=value` each.
    pub environment: Vec<CString>,
    /// Descriptors: (ours, number in the child). Numbers below 3 that are not named are closed.
    pub fds: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Directory to start in.
    pub directory: Option<CString>,
    /// Session and process group.
    pub group: Group,
    /// Identity; absent: the caller's.
    pub credentials: Option<Credentials>,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// File mode mask; absent: the caller's.
    pub umask: Option<u32>,
    /// The child is to be killed rather than the caller when memory runs out.
    pub first_to_go: Option<FirstToGo<'a>>,
    /// A shell for programs that are text without `#!`, as `execvp` would. Absent: an error.
    pub script_shell: Option<CString>,
}

/// What the child was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// The request itself: nothing to run, too many descriptors.
    Prepare,
    /// `clone`.
    Clone,
    /// `setsid` or `setpgid`.
    Session,
    /// Moving descriptors into place.
    Descriptors,
    /// `TIOCSCTTY`.
    Terminal,
    /// `setrlimit`.
    Limits,
    /// `setgroups`, `setresgid`, `setresuid`.
    Credentials,
    /// `oom_score_adj`.
    OomScore,
    /// `chdir`.
    Directory,
    /// `execve`.
    Execute,
}

/// A process was not started.
#[derive(Debug, thiserror::Error)]
#[error("could not start a process ({step:?})")]
pub struct SpawnError {
    /// Where it failed.
    pub step: Step,
    /// Why.
    #[source]
    pub source: io::Error,
}

const STACK_BYTES: usize = 64 << 10;
/// Descriptors above the fixed ones are parked here while they are moved into place.
const MAX_FDS: usize = 16;

/// A stack for the child, with an inaccessible page below it.
struct Stack {
    base: *mut c_void,
}

impl Stack {
    fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the first page of the mapping just made, which nobody uses yet.
        if unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, which is still the same object; mmap aligned
        // it to a page, so it is aligned to 16 as the ABI wants.
        unsafe { self.base.byte_add(STACK_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; the child that ran on it has executed or exited,
        // since CLONE_VFORK does not return before.
        unsafe { libc::munmap(self.base, STACK_BYTES) };
    }
}

/// Everything the child reads, made before the clone; and where it leaves its error.
struct Plan<'a> {
    request: &'a Spawn<'a>,
    argv: Vec<*const c_char>,
    /// `shell, program, arguments…`; slot 1 is filled in by the child.
    script: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Sources, none of which is below `first_free`.
    fds: Vec<(RawFd, RawFd)>,
    /// The caller's own `oom_score_adj`, and what it holds between two starts.
    own_score: Option<(RawFd, String)>,
    first_free: c_int,
    failed: Option<(Step, c_int)>,
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn check(step: Step, result: libc::c_long) -> Result<(), (Step, c_int)> {
    if result == -1 { Err((step, errno())) } else { Ok(()) }
}

fn put(file: RawFd, text: &str) -> libc::c_long {
    // SAFETY: live text with its length, and a number.
    unsafe { libc::syscall(libc::SYS_pwrite64, file, text.as_ptr(), text.len(), 0) }
}

fn pointers(words: &[CString]) -> Vec<*const c_char> {
    words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect()
}

/// Runs in the child, in the caller's memory: system calls only, no allocation, no lock, no
/// panic. `libc::syscall` is used where glibc's wrapper would signal the caller's other threads
/// (setresuid and friends) or keep state.
fn child(plan: &mut Plan<'_>) -> Result<std::convert::Infallible, (Step, c_int)> {
    let request = plan.request;
    if let Some((file, score)) = &plan.own_score {
        check(Step::OomScore, put(*file, score))?;
    }
    // The kernel's own shape of a signal action: handler, flags, restorer, mask; all zero is the
    // default action. glibc's wrapper leaves out the two signals it keeps for itself.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` lives through the call, a null old action is allowed, and the child
        // has a signal table of its own (no CLONE_SIGHAND). KILL and STOP give an error.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                mem::size_of::<c_ulong>(),
            );
        }
    }
    // SAFETY: no pointers.
    unsafe {
        match request.group {
            Group::Inherit => {}
            Group::NewGroup => {
                check(Step::Session, libc::syscall(libc::SYS_setpgid, 0, 0))?;
            }
            Group::NewSession | Group::Terminal => {
                check(Step::Session, libc::syscall(libc::SYS_setsid))?;
            }
        }
    }
    let mut past = 0;
    for &(source, target) in &plan.fds {
        // SAFETY: descriptors are numbers; the sources are borrowed for the whole call and lie
        // above every target, so no source is overwritten before its turn. dup2 clears CLOEXEC.
        check(Step::Descriptors, unsafe { libc::syscall(libc::SYS_dup2, source, target) })?;
        // Targets are sorted, so this closes each gap between them.
        if target > past {
            // SAFETY: as above; closing numbers that are not open is not an error.
            unsafe { libc::syscall(libc::SYS_close_range, past, target - 1, 0) };
        }
        past = target + 1;
    }
    // SAFETY: closes this process's copies only (no CLONE_FILES).
    check(Step::Descriptors, unsafe { libc::syscall(libc::SYS_close_range, past, c_int::MAX, 0) })?;
    if request.group == Group::Terminal {
        // SAFETY: TIOCSCTTY takes a number.
        check(Step::Terminal, unsafe { libc::syscall(libc::SYS_ioctl, 0, libc::TIOCSCTTY, 0) })?;
    }
    for limit in &request.limits {
        let value = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: `value` lives through the call; a null old value is allowed.
        check(Step::Limits, unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                limit.resource,
                &raw const value,
                ptr::null_mut::<c_void>(),
            )
        })?;
    }
    if let Some(mask) = request.umask {
        // SAFETY: a number; umask cannot fail.
        unsafe { libc::syscall(libc::SYS_umask, mask) };
    }
    if let Some(who) = &request.credentials {
        // SAFETY: the pointer and length are of a live vector; the rest are numbers.
        unsafe {
            let groups = libc::syscall(libc::SYS_setgroups, who.groups.len(), who.groups.as_ptr());
            check(Step::Credentials, groups)?;
            let gid = libc::syscall(libc::SYS_setresgid, who.gid, who.gid, who.gid);
            check(Step::Credentials, gid)?;
            let uid = libc::syscall(libc::SYS_setresuid, who.uid, who.uid, who.uid);
            check(Step::Credentials, uid)?;
        }
    }
    // After the identity: a directory that the user may not enter is an error, not a gift.
    if let Some(directory) = &request.directory {
        // SAFETY: a live NUL-terminated string.
        check(Step::Directory, unsafe { libc::syscall(libc::SYS_chdir, directory.as_ptr()) })?;
    }
    // SAFETY: an empty set of the kernel's size, which lives through the call.
    unsafe {
        let none: c_ulong = 0;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<c_void>(),
            mem::size_of::<c_ulong>(),
        );
    }
    let mut reason = libc::ENOENT;
    for program in &request.programs {
        // SAFETY: NUL-terminated strings and null-terminated arrays of them, alive until the
        // caller goes on, which is after this call has replaced the memory or failed.
        unsafe {
            libc::syscall(
                libc::SYS_execve,
                program.as_ptr(),
                plan.argv.as_ptr(),
                plan.envp.as_ptr(),
            );
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => reason = libc::EACCES,
            libc::ENOEXEC => {
                if let (Some(shell), Some(slot)) = (&request.script_shell, plan.script.get_mut(1)) {
                    *slot = program.as_ptr();
                    // SAFETY: as for the call above.
                    unsafe {
                        libc::syscall(
                            libc::SYS_execve,
                            shell.as_ptr(),
                            plan.script.as_ptr(),
                            plan.envp.as_ptr(),
                        );
                    }
                }
                return Err((Step::Execute, libc::ENOEXEC));
            }
            other => return Err((Step::Execute, other)),
        }
    }
    Err((Step::Execute, reason))
}

extern "C" fn enter(argument: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a pointer to its own plan and sleeps until this process is gone, so
    // the reference is unique and alive.
    let plan = unsafe { &mut *argument.cast::<Plan<'_>>() };
    let Err(failed) = child(plan);
    plan.failed = Some(failed);
    // SAFETY: ends this process without running anything of the caller's.
    unsafe {
        libc::syscall(libc::SYS_exit_group, 127);
    }
    127
}

/// Restores the thread's signal mask.
struct Masked(libc::sigset_t);

impl Masked {
    /// Blocks every signal: a handler must not run in the child, which shares our memory.
    fn all() -> Self {
        // SAFETY: both sets are plain memory that the calls fill.
        unsafe {
            let (mut full, mut old): (libc::sigset_t, libc::sigset_t) =
                (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut full);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const full, &raw mut old);
            Self(old)
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: the mask that `all` saved.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Starts a process and returns its id once it runs its program. The caller reaps it.
///
/// In the child every signal has its default action and none is blocked.
///
/// # Errors
/// Names the step that failed; the failed child has been reaped.
pub fn spawn(request: &Spawn<'_>) -> Result<i32, SpawnError> {
    let prepare = |source| SpawnError { step: Step::Prepare, source };
    let invalid = || prepare(io::Error::from(io::ErrorKind::InvalidInput));
    if request.programs.is_empty() || request.arguments.is_empty() || request.fds.len() > MAX_FDS {
        return Err(invalid());
    }
    // Targets in order, sources out of their way.
    let mut targets: Vec<_> = request.fds.iter().map(|(fd, number)| (*fd, *number)).collect();
    targets.sort_by_key(|(_, number)| *number);
    let first_free = targets.last().map_or(0, |(_, number)| number + 1).max(3);
    if targets.first().is_some_and(|(_, number)| *number < 0)
        || targets.windows(2).any(|pair| matches!(pair, [a, b] if a.1 == b.1))
    {
        return Err(invalid());
    }
    let mut parked: Vec<OwnedFd> = Vec::new();
    let mut fds = Vec::with_capacity(targets.len());
    for (fd, number) in targets {
        let mut source = fd.as_raw_fd();
        if source < first_free {
            // SAFETY: duplicates a borrowed, open descriptor to a number that is free.
            let copy = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, first_free) };
            if copy < 0 {
                return Err(prepare(io::Error::last_os_error()));
            }
            // SAFETY: just made, owned by nobody else.
            parked.push(unsafe { OwnedFd::from_raw_fd(copy) });
            source = copy;
        }
        fds.push((source, number));
    }
    let mut script = Vec::new();
    if let Some(shell) = &request.script_shell {
        script.extend([shell.as_ptr(), ptr::null()]);
        script.extend(request.arguments.iter().skip(1).map(|word| word.as_ptr()));
        script.push(ptr::null());
    }
    let mut plan = Plan {
        request,
        argv: pointers(&request.arguments),
        script,
        envp: pointers(&request.environment),
        fds,
        own_score: request.first_to_go.map(|go| (go.own.as_raw_fd(), go.score.to_string())),
        first_free,
        failed: None,
    };
    debug_assert!(plan.fds.iter().all(|(source, _)| *source >= plan.first_free));
    let stack = Stack::new().map_err(prepare)?;
    let masked = Masked::all();
    if let Some(FirstToGo { own, child, .. }) = request.first_to_go
        && put(own.as_raw_fd(), &child.to_string()) == -1
    {
        let source = io::Error::last_os_error();
        return Err(SpawnError { step: Step::OomScore, source });
    }
    // SAFETY: `enter` runs on `stack`, which outlives it because CLONE_VFORK suspends this thread
    // until the child has executed or exited; it touches `plan` only, which this frame owns and
    // does not use meanwhile. CLONE_VM shares the memory, not the descriptors, the working
    // directory or the signal table. Every signal is blocked, so no handler runs in the child.
    let pid = unsafe {
        libc::clone(
            enter,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut plan).cast::<c_void>(),
        )
    };
    let cloned = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
    drop(masked);
    let pid = cloned.map_err(|source| {
        // There is no child that would have done it.
        if let Some((file, score)) = &plan.own_score {
            put(*file, score);
        }
        SpawnError { step: Step::Clone, source }
    })?;
    match plan.failed {
        None => Ok(pid),
        Some((step, code)) => {
            reap(pid);
            Err(SpawnError { step, source: io::Error::from_raw_os_error(code) })
        }
    }
}

fn reap(pid: i32) {
    // SAFETY: waits for our own child; a null status is allowed. A loop that reaps everything
    // may have been first, which is an error we can ignore.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0 && errno() == libc::EINTR {}
}

/// The environment block as `execve` wants it; variables with a NUL byte are an error.
///
/// # Errors
/// `InvalidInput` for a NUL byte.
pub fn environment<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> io::Result<Vec<CString>> {
    variables
        .into_iter()
        .map(|(name, value)| Ok(CString::new(format!("{name}={value}"))?))
        .collect()
}

/// Where `execvp` would look for `program`: itself when it has a slash, else in each directory of
/// `path` (an empty one is the current directory).
///
/// # Errors
/// `InvalidInput` for a NUL byte.
pub fn candidates(program: &str, path: &str) -> io::Result<Vec<CString>> {
    if program.contains('/') {
        return Ok(vec![CString::new(program)?]);
    }
    path.split(':')
        .take(64)
        .map(|directory| {
            let place = if directory.is_empty() { "." } else { directory };
            Ok(CString::new(format!("{place}/{program}"))?)
        })
        .collect()
}

/// Borrowed text for [`Spawn::script_shell`] and tests.
pub fn shell() -> CString {
    CStr::to_owned(c"/bin/sh")
}

#[cfg(test)]
mod tests;
