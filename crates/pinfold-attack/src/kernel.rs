//! Moves against kernel interfaces with a history of holes.

use crate::{
    Attempt,
    Category::Syscalls,
    Stop, Tried, Wall,
    raw::{c, call},
};

macro_rules! simple {
    ($($name:ident = $number:expr, [$($arg:expr),*];)*) => {$(
        fn $name() -> Tried {
            let mut args = [0_usize; 6];
            let given: &[usize] = &[$($arg),*];
            args[..given.len()].copy_from_slice(given);
            call($number, args).map(|value| format!(concat!(stringify!($name), " answered {}"), value))
        }
    )*};
}

static ZEROS: [u64; 32] = [0; 32];

fn zeros() -> usize {
    ZEROS.as_ptr() as usize
}

simple! {
    io_uring_setup = libc::SYS_io_uring_setup, [8, Box::leak(Box::new([0_u64; 32])).as_ptr() as usize];
    io_uring_enter = libc::SYS_io_uring_enter, [usize::MAX, 1, 0, 0];
    io_uring_register = libc::SYS_io_uring_register, [usize::MAX, 0, zeros(), 0];
    bpf = libc::SYS_bpf, [0, zeros(), 64];
    userfaultfd = libc::SYS_userfaultfd, [1];
    perf_event_open = libc::SYS_perf_event_open, [zeros(), 0, usize::MAX, usize::MAX, 0];
    add_key = libc::SYS_add_key, [c("user").into_raw() as usize, c("x").into_raw() as usize, zeros(), 8, (-3_isize) as usize];
    request_key = libc::SYS_request_key, [c("user").into_raw() as usize, c("x").into_raw() as usize, 0, 0];
    keyctl = libc::SYS_keyctl, [0, (-3_isize) as usize, 1];
    init_module = libc::SYS_init_module, [zeros(), 8, zeros()];
    finit_module = libc::SYS_finit_module, [0, zeros(), 0];
    delete_module = libc::SYS_delete_module, [c("nothing").into_raw() as usize, 0];
    kexec_load = libc::SYS_kexec_load, [0, 0, zeros(), 0];
    reboot = libc::SYS_reboot, [1, 1, 0, 0];
    settimeofday = libc::SYS_settimeofday, [1, 0];
    clock_settime = libc::SYS_clock_settime, [0, 1];
    adjtimex = libc::SYS_adjtimex, [1];
    acct = libc::SYS_acct, [1];
    iopl = libc::SYS_iopl, [3];
    ioperm = libc::SYS_ioperm, [0x80, 1, 1];
    lookup_dcookie = libc::SYS_lookup_dcookie, [1, zeros(), 8];
    nfsservctl = libc::SYS_nfsservctl, [0, 0, 0];
    uselib = libc::SYS_uselib, [c("/bin/true").into_raw() as usize];
    vhangup = libc::SYS_vhangup, [];
    fanotify = libc::SYS_fanotify_init, [4, 0];
    open_by_handle = libc::SYS_open_by_handle_at, [libc::AT_FDCWD as usize, zeros(), 0];
    move_pages_init = libc::SYS_move_pages, [1, 0, zeros(), zeros(), zeros(), 0];
    migrate_pages = libc::SYS_migrate_pages, [1, 1, zeros(), zeros()];
    landlock_probe_lsm = 461, [zeros(), zeros(), 0];
    memfd_secret = libc::SYS_memfd_secret, [0];
    kcmp_init = libc::SYS_kcmp, [1, std::process::id() as usize, 0, 0, 0];
}

fn personality() -> Tried {
    // ADDR_NO_RANDOMIZE lets an attacker know a victim's addresses; READ_IMPLIES_EXEC undoes W^X.
    // SAFETY: personality takes flags only.
    let answer = unsafe { libc::personality(0x040_0000) };
    if answer < 0 { Err(crate::raw::last()) } else { Ok("READ_IMPLIES_EXEC is set".into()) }
}

fn i386_entry() -> Tried {
    // int 0x80 with the 32-bit number of getpid (20): another table than the filter's numbers.
    #[cfg(target_arch = "x86_64")]
    {
        let answer: i64;
        // SAFETY: the 32-bit entry of getpid touches no memory; registers it may clobber are named.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        if answer > 0 {
            return Ok(format!("the 32-bit table answered {answer}"));
        }
        Err(Stop::Errno(i32::try_from(-answer).unwrap_or(0)))
    }
    #[cfg(not(target_arch = "x86_64"))]
    Err(Stop::Inapplicable("no 32-bit entry on this processor".into()))
}

fn x32_entry() -> Tried {
    call(0x4000_0000 | libc::SYS_getpid, [0; 6]).map(|pid| format!("the x32 table answered {pid}"))
}

fn handle_of_root() -> Tried {
    // name_to_handle_at, then guess inode 2 of the host's disk: the "shocker" attack.
    let path = c("/");
    let mut handle = [0_u8; 136];
    handle[0] = 128;
    let mount = 0_i32;
    call(
        libc::SYS_name_to_handle_at,
        [
            libc::AT_FDCWD as usize,
            path.as_ptr() as usize,
            handle.as_mut_ptr() as usize,
            (&raw const mount) as usize,
            0,
            0,
        ],
    )?;
    let root = crate::raw::open("/", libc::O_RDONLY)?;
    let fd = call(
        libc::SYS_open_by_handle_at,
        [
            usize::try_from(root).map_err(|_| Stop::Nothing("no descriptor"))?,
            handle.as_ptr() as usize,
            0,
            0,
            0,
            0,
        ],
    )?;
    Ok(format!("opened a file by handle as descriptor {fd}"))
}

const DENIED: &[&str] = &["EPERM", "ENOSYS", "EACCES"];

macro_rules! table {
    ($($id:literal, $body:ident, $what:literal, $source:literal;)*) => {
        pub(crate) const ATTEMPTS: &[Attempt] = &[$(
            Attempt { id: $id, category: Syscalls, wall: Wall::Seccomp, what: $what, source: $source, held: DENIED, body: $body },
        )*];
    };
}

table! {
    "sys-io-uring-setup", io_uring_setup, "make an io_uring, which passes by any filter of sockets", "IORING_OP_SOCKET passes by seccomp; CVE-2022-29582";
    "sys-io-uring-enter", io_uring_enter, "submit to an io_uring", "io_uring_enter(2)";
    "sys-io-uring-register", io_uring_register, "register with an io_uring", "CVE-2021-41073";
    "sys-bpf", bpf, "make a BPF map", "CVE-2021-31440, CVE-2023-2163";
    "sys-userfaultfd", userfaultfd, "stop the kernel at a page of ours", "userfaultfd(2) in race exploits";
    "sys-perf", perf_event_open, "open a performance counter", "CVE-2013-2094, CVE-2023-2235";
    "sys-add-key", add_key, "add a key to a ring that is not in a namespace", "CVE-2016-0728; keyrings(7)";
    "sys-request-key", request_key, "make the host run request-key", "request_key(2)";
    "sys-keyctl", keyctl, "reach the session key ring", "CVE-2016-0728";
    "sys-init-module", init_module, "load a module from memory", "init_module(2)";
    "sys-finit-module", finit_module, "load a module from a file", "finit_module(2)";
    "sys-delete-module", delete_module, "unload a module", "delete_module(2)";
    "sys-kexec", kexec_load, "load another kernel", "kexec_load(2)";
    "sys-reboot", reboot, "reboot (with the magic numbers left out: armed, not fired)", "reboot(2)";
    "sys-settimeofday", settimeofday, "set the host's clock (with a bad pointer: armed, not fired)", "settimeofday(2)";
    "sys-clock-settime", clock_settime, "set the host's clock by clock_settime", "clock_settime(2)";
    "sys-adjtimex", adjtimex, "slew the host's clock", "adjtimex(2)";
    "sys-acct", acct, "turn on process accounting to a file of ours", "acct(2)";
    "sys-iopl", iopl, "gain I/O privilege", "iopl(2)";
    "sys-ioperm", ioperm, "gain an I/O port", "ioperm(2)";
    "sys-lookup-dcookie", lookup_dcookie, "turn a cookie into a host path", "lookup_dcookie(2)";
    "sys-nfsservctl", nfsservctl, "reach a removed call", "nfsservctl(2)";
    "sys-uselib", uselib, "reach the old loader", "CVE-2004-1235";
    "sys-vhangup", vhangup, "hang up the terminal", "vhangup(2)";
    "sys-fanotify", fanotify, "watch and hold every open of a filesystem", "fanotify_init(2)";
    "sys-open-by-handle", open_by_handle, "open by a made-up handle", "the shocker attack of 2014";
    "sys-handle-of-root", handle_of_root, "take the root's handle and open it", "the shocker attack of 2014";
    "sys-move-pages", move_pages_init, "move process 1's pages", "move_pages(2)";
    "sys-migrate-pages", migrate_pages, "migrate process 1's pages", "migrate_pages(2)";
    "sys-lsm", landlock_probe_lsm, "list security modules", "lsm_list_modules, Linux 6.8";
    "sys-memfd-secret", memfd_secret, "make memory that cannot be swapped or counted as usual", "memfd_secret(2)";
    "sys-kcmp", kcmp_init, "compare kernel objects with process 1's", "kcmp(2)";
    "sys-personality", personality, "undo W^X by personality", "personality(2), READ_IMPLIES_EXEC";
    "sys-i386", i386_entry, "enter by the 32-bit table", "seccomp(2), the architecture caveat";
    "sys-x32", x32_entry, "enter by the x32 table", "seccomp(2), __X32_SYSCALL_BIT";
}
