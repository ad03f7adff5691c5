//! Samples of what this process computes: a timer of its CPU time (setitimer(2), `ITIMER_PROF`)
//! interrupts whichever thread runs, and the handler writes down where it is.
//!
//! The handler takes no lock and allocates nothing: it claims a slot of a table made beforehand by
//! one atomic addition, and walks the stack by the unwind tables, which glibc 2.35 and later finds
//! without a lock. A sample over the table's size is counted and lost.

use std::{
    cell::UnsafeCell,
    io,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
};

/// Most calls of one stack that are kept, innermost first.
pub const MAX_DEPTH: usize = 128;
/// Most samples of one profile.
pub const MAX_SAMPLES: usize = 65_536;
/// Samples a second of CPU time: no round number, so that it does not march in step with timers.
pub const HERTZ: u32 = 99;

/// Where a thread was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Id of the thread, gettid(2).
    pub thread: i32,
    /// Addresses, innermost first: of the instruction, then of where each caller goes on.
    pub stack: Vec<usize>,
}

/// What one profile saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// In the order in which they began.
    pub samples: Vec<Sample>,
    /// Interruptions that found no room.
    pub lost: u64,
}

struct Slot {
    thread: i32,
    depth: usize,
    stack: [usize; MAX_DEPTH],
}

struct Table {
    next: AtomicUsize,
    slots: Box<[UnsafeCell<Slot>]>,
}

/// The table in use; null while nobody profiles.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());
/// Handlers that may hold the table.
static HANDLERS: AtomicU32 = AtomicU32::new(0);
static BUSY: AtomicBool = AtomicBool::new(false);

/// A profile under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Sampling(());

impl Sampling {
    /// Begins, with room for `room` samples, at most [`MAX_SAMPLES`].
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] while another profile is under way, or what the kernel says.
    pub fn begin(room: usize) -> io::Result<Self> {
        if BUSY.swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // From here on the drop of this cleans up.
        let sampling = Self(());
        let empty = || UnsafeCell::new(Slot { thread: 0, depth: 0, stack: [0; MAX_DEPTH] });
        let slots = (0..room.clamp(1, MAX_SAMPLES)).map(|_| empty()).collect();
        let table = Box::new(Table { next: AtomicUsize::new(0), slots });
        // The unwinder and its tables are used once outside of a handler: what it does lazily is
        // done then.
        walk(|_| true);
        TABLE.store(Box::into_raw(table), Ordering::SeqCst);
        install()?;
        arm(HERTZ)?;
        Ok(sampling)
    }

    /// Ends it, and gives what was seen.
    #[must_use]
    pub fn end(self) -> Samples {
        let table = take();
        drop(self);
        let Some(table) = table else { return Samples::default() };
        let began = table.next.load(Ordering::SeqCst);
        let lost = began.saturating_sub(table.slots.len());
        let slots = table.slots.into_iter().take(began).map(UnsafeCell::into_inner);
        let samples = slots
            .map(|slot| Sample { thread: slot.thread, stack: slot.stack[..slot.depth].to_vec() })
            .collect();
        Samples { samples, lost: u64::try_from(lost).unwrap_or(u64::MAX) }
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        drop(take());
        BUSY.store(false, Ordering::Release);
    }
}

/// Stops the timer and takes the table from the handlers.
fn take() -> Option<Box<Table>> {
    // Nothing could be done about an error, and there is none for a timer that exists.
    let _disarmed = arm(0);
    let table = TABLE.swap(std::ptr::null_mut(), Ordering::SeqCst);
    while HANDLERS.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
    // SAFETY: the pointer came from `Box::into_raw` and was taken out of the only place that held
    // it. A handler reads that place only after it counted itself into `HANDLERS`, so that one
    // which still had the pointer has been waited for, and a later one finds null.
    (!table.is_null()).then(|| unsafe { Box::from_raw(table) })
}

/// Names of what is at an address: the function, then those it was inlined into. Empty where the
/// program's symbols were taken off. `exact`: the address of an instruction, not of a caller's next.
pub fn names(address: usize, exact: bool) -> Vec<String> {
    let mut names = Vec::new();
    // The instruction after a call may be of the next line, or of the next function.
    let address = if exact { address } else { address.saturating_sub(1) };
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        names.extend(symbol.name().map(|name| format!("{name:#}")));
    });
    names
}

/// Gives back what looking up names took.
pub fn forget_names() {
    backtrace::clear_symbol_cache();
}

fn walk(visit: impl FnMut(&backtrace::Frame) -> bool) {
    // SAFETY: the function may not be called by two threads at once for its use of dbghelp on
    // Windows alone (its documentation); here it is a call of the unwinder, which keeps no state.
    unsafe { backtrace::trace_unsynchronized(visit) }
}

fn install() -> io::Result<()> {
    // SAFETY: the structure is zeroed, which is a valid value of it (no flags, an empty mask), and
    // what is set in it is a handler of the type that SA_SIGINFO asks for. SA_RESTART keeps calls
    // of other code from failing where the kernel can take them up again.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The handler stays when the timer has stopped: a signal under way then finds no table, where it
/// would end the process without a handler.
fn arm(hertz: u32) -> io::Result<()> {
    let micros = 1_000_000_u32.checked_div(hertz).unwrap_or(0);
    let every = libc::timeval { tv_sec: 0, tv_usec: micros.into() };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the kernel reads one itimerval, and writes none to a null pointer.
    let done =
        unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handler(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    HANDLERS.fetch_add(1, Ordering::SeqCst);
    let table = TABLE.load(Ordering::SeqCst);
    // SAFETY: what is not null points to a table that is freed only after this handler has counted
    // itself out (`take`). `errno` is this thread's own, and is put back for the code that was
    // interrupted.
    unsafe {
        if let Some(table) = table.as_ref() {
            let errno = libc::__errno_location();
            let before = *errno;
            sample(table, context.cast());
            *errno = before;
        }
    }
    HANDLERS.fetch_sub(1, Ordering::SeqCst);
}

/// # Safety
/// `context` is what the kernel gave to a handler with `SA_SIGINFO`, or null.
unsafe fn sample(table: &Table, context: *const libc::ucontext_t) {
    let Some(slot) = table.slots.get(table.next.fetch_add(1, Ordering::SeqCst)) else { return };
    // SAFETY: each index is given away once, so that nobody else has this slot; the kernel's
    // context is valid while the handler runs (the caller's promise).
    let (slot, at) = unsafe { (&mut *slot.get(), context.as_ref().map(interrupted)) };
    // SAFETY: gettid(2) takes nothing and cannot fail.
    slot.thread = unsafe { libc::gettid() };
    let mut reached = false;
    walk(|frame| {
        let address = frame.ip() as usize;
        // What lies before is this handler.
        reached = reached || Some(address) == at;
        if reached && let Some(place) = slot.stack.get_mut(slot.depth) {
            *place = address;
            slot.depth += 1;
        }
        slot.depth < MAX_DEPTH
    });
    if let (false, Some(at)) = (reached, at) {
        slot.stack[0] = at;
        slot.depth = 1;
    }
}

/// The instruction that comes next in the code that was interrupted.
fn interrupted(context: &libc::ucontext_t) -> usize {
    let index = usize::try_from(libc::REG_RIP).unwrap_or(0);
    usize::try_from(context.uc_mcontext.gregs[index].cast_unsigned()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[inline(never)]
    fn spin_for_the_profile(time: Duration) -> u64 {
        let until = Instant::now() + time;
        let mut value = 0_u64;
        while Instant::now() < until {
            for turn in 0..1000_u64 {
                value = std::hint::black_box(value.wrapping_mul(31).wrapping_add(turn));
            }
        }
        value
    }

    // One test: a process has one profile at a time.
    #[test]
    fn a_profile_names_what_ran_is_alone_and_bounded() {
        let sampling = Sampling::begin(4096).expect("nobody else profiles");
        let second = Sampling::begin(1).expect_err("one at a time");
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        spin_for_the_profile(Duration::from_millis(500));
        let Samples { samples, lost } = sampling.end();
        assert_eq!(lost, 0);
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let named = samples.iter().filter(|sample| sample.thread == own).filter(|sample| {
            let all = sample.stack.iter().enumerate().flat_map(|(i, at)| names(*at, i == 0));
            all.into_iter().any(|name| name.contains("spin_for_the_profile"))
        });
        // 500 ms of one CPU are some 49 samples; a busy machine gives it less.
        assert!(named.count() >= 5, "{} samples", samples.len());
        assert!(samples.iter().all(|sample| sample.stack.len() <= MAX_DEPTH));
        forget_names();

        let sampling = Sampling::begin(1).expect("the first has ended");
        spin_for_the_profile(Duration::from_millis(300));
        let small = sampling.end();
        assert_eq!(small.samples.len(), 1);
        assert!(small.lost > 0);
        // Begun and dropped: the timer is off, and another may begin.
        drop(Sampling::begin(1).expect("a third"));
        drop(Sampling::begin(1).expect("a fourth"));
    }
}
