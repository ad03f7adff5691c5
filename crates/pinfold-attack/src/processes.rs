//! Moves against other processes: process 1 above all.

use std::os::fd::AsRawFd;

use crate::{
    Attempt,
    Category::{Channel, Paths, Privilege, Processes},
    Stop, Tried, Wall,
    raw::{c, call, check, io, open, open_for_write, read_some},
};

fn ptrace_init() -> Tried {
    // SAFETY: PTRACE_SEIZE takes no memory.
    let answer = unsafe { libc::ptrace(libc::PTRACE_SEIZE, 1, 0, 0) };
    if answer < 0 { Err(crate::raw::last()) } else { Ok("tracing process 1".into()) }
}

fn read_init_memory() -> Tried {
    let buffer = [0_u8; 64];
    let local = libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: 64 };
    let remote = libc::iovec { iov_base: 0x40_0000 as *mut libc::c_void, iov_len: 64 };
    call(
        libc::SYS_process_vm_readv,
        [1, (&raw const local) as usize, 1, (&raw const remote) as usize, 1, 0],
    )
    .map(|count| format!("read {count} bytes of process 1"))
}

fn write_init_memory() -> Tried {
    let buffer = [0_u8; 8];
    let local = libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: 8 as *mut libc::c_void, iov_len: 8 };
    call(
        libc::SYS_process_vm_writev,
        [1, (&raw const local) as usize, 1, (&raw const remote) as usize, 1, 0],
    )
    .map(|count| format!("wrote {count} bytes into process 1"))
}

fn init_mem_file() -> Tried {
    open_for_write("/proc/1/mem")
}
fn init_environ() -> Tried {
    read_some("/proc/1/environ")
}
fn init_maps() -> Tried {
    read_some("/proc/1/maps")
}
fn init_auxv() -> Tried {
    read_some("/proc/1/auxv")
}
fn init_stack() -> Tried {
    read_some("/proc/1/stack")
}
fn init_syscall() -> Tried {
    read_some("/proc/1/syscall")
}
fn init_exe() -> Tried {
    open_for_write("/proc/1/exe")
}
fn init_exe_read() -> Tried {
    read_some("/proc/1/exe")
}
fn init_root() -> Tried {
    let found = std::fs::metadata("/proc/1/root/etc").map_err(io)?;
    Ok(format!(
        "process 1's root is open, its etc has {} links",
        std::os::unix::fs::MetadataExt::nlink(&found)
    ))
}
fn init_cwd() -> Tried {
    std::fs::read_dir("/proc/1/cwd/").map(|_| "process 1's directory is open".into()).map_err(io)
}
fn init_fds() -> Tried {
    let names: Vec<String> = std::fs::read_dir("/proc/1/fd")
        .map_err(io)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    Ok(format!("process 1's descriptors: {}", names.join(" ")))
}
fn init_fd_open() -> Tried {
    for fd in 3..12 {
        if let Ok(open) = open(&format!("/proc/1/fd/{fd}"), libc::O_RDWR) {
            return Ok(format!("took process 1's descriptor {fd} as {open}"));
        }
    }
    open("/proc/1/fd/3", libc::O_RDWR).map(|_| String::new())
}
fn pidfd_getfd() -> Tried {
    let pidfd = call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0])?;
    let pidfd = usize::try_from(pidfd).map_err(|_| Stop::Nothing("no descriptor"))?;
    call(libc::SYS_pidfd_getfd, [pidfd, 3, 0, 0, 0, 0])
        .map(|fd| format!("took process 1's listening socket as {fd}"))
}
fn kill_all() -> Tried {
    let before = std::fs::read_dir("/proc").map_err(io)?.count();
    // Signal 0 to every process that may be signalled: counts, harms nothing.
    // SAFETY: kill takes numbers only.
    check(unsafe { libc::kill(-1, 0) })?;
    let host = (2..4_000).filter(|pid| {
        // SAFETY: kill takes numbers only.
        let signalled = unsafe { libc::kill(*pid, 0) } == 0;
        signalled && !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
    let count = host.count();
    if count > 0 {
        Ok(format!("{count} unseen processes take signals, {before} seen"))
    } else {
        Err(Stop::Nothing("none visible"))
    }
}
fn setpriority_init() -> Tried {
    // Making itself more urgent than its share needs CAP_SYS_NICE over the host's classes.
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: a live parameter.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) })?;
    Ok("real-time scheduling".into())
}
fn nice_down() -> Tried {
    // SAFETY: numbers only.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) })?;
    Ok("nice -20".into())
}
fn prlimit_init() -> Tried {
    // Lower, which takes no right of its own: with few open files process 1 could start nothing.
    // One fewer than now shows it and does no harm.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live out-parameter; one's own are as high as those of process 1.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur -= 1;
    limit.rlim_max -= 1;
    // SAFETY: a live limit, no old one asked for.
    let done =
        unsafe { libc::prlimit(1, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    check(done)?;
    Ok("changed process 1's limits".into())
}
fn raise_own_limit() -> Tried {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live out-parameter.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_max += 1;
    // SAFETY: a live limit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok("raised the hard limit of open files".into())
}
fn pid_reuse() -> Tried {
    // A pidfd must name the process it was opened for, whatever takes the number afterwards.
    // SAFETY: the child ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    let number = usize::try_from(child).map_err(|_| Stop::Nothing("no child"))?;
    let pidfd = call(libc::SYS_pidfd_open, [number, 0, 0, 0, 0, 0])?;
    // SAFETY: reaps the child just made.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    std::fs::write("/proc/sys/kernel/ns_last_pid", (child - 1).to_string()).map_err(io)?;
    Ok(format!("chose the next process id freely (pidfd {pidfd})"))
}

fn proc_root_race() -> Tried {
    // A child's /proc/PID/root is followed while it changes its root.
    // SAFETY: the child only changes its own root and waits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let (tmp, dot) = (c("/tmp"), c("/"));
        // SAFETY: live C strings.
        unsafe {
            for _ in 0..2000 {
                libc::chroot(tmp.as_ptr());
                libc::chroot(dot.as_ptr());
            }
            libc::_exit(0);
        }
    }
    let mut found = None;
    for _ in 0..2000 {
        found = found.or_else(|| crate::raw::host_sign(&format!("/proc/{child}/root/../../..")));
    }
    // SAFETY: the child made above.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    found.map_or(Err(Stop::Nothing("same root")), |path| Ok(format!("{path} of the host")))
}

fn proc_self_root_climb() -> Tried {
    let climbs = [
        "/proc/self/root/../../..",
        "/proc/self/cwd/../../../../../..",
        "/proc/thread-self/root/..",
        "/../../..",
    ];
    for climb in climbs {
        if let Some(path) = crate::raw::host_sign(climb) {
            return Ok(format!("{path} exists"));
        }
    }
    Err(Stop::Nothing("same root"))
}
fn openat2_escape() -> Tried {
    // Out of a directory by its descriptor and "..": only the root of the namespace may stop it.
    let dir = open("/", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let path = c("../../../../../../../..");
    // SAFETY: a live descriptor and C string.
    let up =
        check(unsafe { libc::openat(dir, path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY) })?;
    crate::raw::host_sign(&format!("/proc/self/fd/{up}"))
        .map_or(Err(Stop::Nothing("same root")), |path| {
            Ok(format!("{path} by a descriptor and .."))
        })
}

fn setuid_gain() -> Tried {
    // A set-uid copy of a shell must not raise anybody: no_new_privs.
    // SAFETY: takes numbers only.
    let answer = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
    if answer == 1 { Err(Stop::Nothing("set")) } else { Ok("programs may gain privileges".into()) }
}
fn gain_capability() -> Tried {
    let text = std::fs::read_to_string("/proc/self/status").map_err(io)?;
    let forbidden: u64 = [
        1_u64 << 21,
        1 << 19,
        1 << 12,
        1 << 13,
        1 << 16,
        1 << 17,
        1 << 22,
        1 << 25,
        1 << 38,
        1 << 39,
        1 << 34,
    ]
    .iter()
    .sum();
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .ok_or(Stop::Nothing("unreadable"))?;
        if value & forbidden != 0 {
            return Ok(format!("{name} holds {:#x}", value & forbidden));
        }
    }
    Err(Stop::Nothing("none held"))
}
fn capset() -> Tried {
    // _LINUX_CAPABILITY_VERSION_3; CAP_SYS_ADMIN in all three sets.
    let header = [0x2008_0522_u32, 0];
    let data = [1_u32 << 21, 1 << 21, 1 << 21, 0, 0, 0];
    call(libc::SYS_capset, [header.as_ptr() as usize, data.as_ptr() as usize, 0, 0, 0, 0])
        .map(|_| "CAP_SYS_ADMIN is held".into())
}
fn setuid_host_range() -> Tried {
    // An id outside the workspace's map must not be takeable.
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresuid(70_000, 70_000, 70_000) })?;
    Ok("became uid 70000".into())
}
fn chown_outside() -> Tried {
    std::fs::write("/tmp/attack-chown", "x").map_err(io)?;
    let path = c("/tmp/attack-chown");
    // SAFETY: a live C string.
    check(unsafe { libc::chown(path.as_ptr(), 100_000, 100_000) })?;
    Ok("gave a file to an id outside the map".into())
}
fn undo_seccomp() -> Tried {
    // SAFETY: takes numbers only.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    if mode == 2 { Err(Stop::Nothing("in force")) } else { Ok(format!("seccomp mode is {mode}")) }
}
fn file_capabilities() -> Tried {
    // The runtime must not raise a file that claims CAP_SYS_ADMIN.
    let target = std::fs::File::create("/tmp/attack-fcap").map_err(io)?;
    let name = c("security.capability");
    // vfs_cap_data revision 2, effective, CAP_SYS_ADMIN permitted (capabilities(7)).
    let mut value = [0_u8; 20];
    value[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
    value[4..8].copy_from_slice(&(1_u32 << 21).to_le_bytes());
    // SAFETY: live descriptor, name and buffer.
    check(unsafe {
        libc::fsetxattr(target.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), 20, 0)
    })?;
    // SAFETY: takes numbers only. The file can claim; only no_new_privs decides what it gets.
    let no_new = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
    if no_new == 1 { Err(Stop::Nothing("set")) } else { Ok("file capabilities would raise".into()) }
}

const SHUT: &[&str] = &["EACCES", "EPERM"];

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "init-ptrace",
        category: Processes,
        wall: Wall::Undumpable,
        what: "trace process 1",
        source: "ptrace(2), access modes",
        held: SHUT,
        body: ptrace_init,
    },
    Attempt {
        id: "init-vm-read",
        category: Channel,
        wall: Wall::Undumpable,
        what: "read the boot secret from process 1's memory",
        source: "process_vm_readv(2)",
        held: SHUT,
        body: read_init_memory,
    },
    Attempt {
        id: "init-vm-write",
        category: Channel,
        wall: Wall::Undumpable,
        what: "write into process 1's memory",
        source: "process_vm_writev(2)",
        held: SHUT,
        body: write_init_memory,
    },
    Attempt {
        id: "init-mem-file",
        category: Channel,
        wall: Wall::Undumpable,
        what: "open process 1's memory",
        source: "proc(5); CVE-2012-0056",
        held: SHUT,
        body: init_mem_file,
    },
    Attempt {
        id: "init-environ",
        category: Channel,
        wall: Wall::Undumpable,
        what: "read process 1's environment",
        source: "proc(5)",
        held: &["EACCES", "EPERM", "empty"],
        body: init_environ,
    },
    Attempt {
        id: "init-maps",
        category: Channel,
        wall: Wall::Undumpable,
        what: "read process 1's map",
        source: "proc(5)",
        held: SHUT,
        body: init_maps,
    },
    Attempt {
        id: "init-auxv",
        category: Channel,
        wall: Wall::Undumpable,
        what: "read process 1's auxiliary vector",
        source: "proc(5)",
        held: SHUT,
        body: init_auxv,
    },
    Attempt {
        id: "init-stack",
        category: Processes,
        wall: Wall::UserNamespace,
        what: "read process 1's kernel stack",
        source: "proc(5)",
        held: &["EACCES", "EPERM", "ENOENT"],
        body: init_stack,
    },
    Attempt {
        id: "init-syscall",
        category: Processes,
        wall: Wall::Undumpable,
        what: "see what process 1 waits in",
        source: "proc(5)",
        held: &["EACCES", "EPERM", "ENOENT"],
        body: init_syscall,
    },
    Attempt {
        id: "init-exe-write",
        category: Processes,
        wall: Wall::UserNamespace,
        what: "overwrite the runtime's program",
        source: "CVE-2019-5736",
        held: &["EACCES", "EPERM", "ETXTBSY", "EROFS", "errno 26"],
        body: init_exe,
    },
    Attempt {
        id: "init-exe-read",
        category: Processes,
        wall: Wall::Undumpable,
        what: "read the guest's program",
        source: "CVE-2019-5736",
        held: SHUT,
        body: init_exe_read,
    },
    Attempt {
        id: "init-root",
        category: Paths,
        wall: Wall::Undumpable,
        what: "walk through process 1's root",
        source: "proc(5), /proc/PID/root",
        held: SHUT,
        body: init_root,
    },
    Attempt {
        id: "init-cwd",
        category: Paths,
        wall: Wall::Undumpable,
        what: "walk through process 1's directory",
        source: "CVE-2024-21626",
        held: SHUT,
        body: init_cwd,
    },
    Attempt {
        id: "init-fd-list",
        category: Channel,
        wall: Wall::Undumpable,
        what: "list process 1's descriptors",
        source: "CVE-2024-21626",
        held: SHUT,
        body: init_fds,
    },
    Attempt {
        id: "init-fd-open",
        category: Channel,
        wall: Wall::Undumpable,
        what: "reopen process 1's descriptors",
        source: "CVE-2024-21626",
        held: &["EACCES", "EPERM", "ENXIO"],
        body: init_fd_open,
    },
    Attempt {
        id: "init-pidfd-getfd",
        category: Channel,
        wall: Wall::Undumpable,
        what: "copy process 1's channel by pidfd_getfd",
        source: "pidfd_getfd(2)",
        held: SHUT,
        body: pidfd_getfd,
    },
    Attempt {
        id: "kill-unseen",
        category: Processes,
        wall: Wall::PidNamespace,
        what: "signal processes that are not visible",
        source: "kill(2)",
        held: &["none visible", "ESRCH"],
        body: kill_all,
    },
    Attempt {
        id: "sched-realtime",
        category: Processes,
        wall: Wall::Capabilities,
        what: "run before everything on the host",
        source: "sched(7)",
        held: &["EPERM"],
        body: setpriority_init,
    },
    Attempt {
        id: "sched-nice",
        category: Processes,
        wall: Wall::Capabilities,
        what: "raise the own priority",
        source: "setpriority(2)",
        held: &["EACCES", "EPERM"],
        body: nice_down,
    },
    Attempt {
        id: "init-prlimit",
        category: Processes,
        wall: Wall::UserNamespace,
        what: "change process 1's limits",
        source: "prlimit(2)",
        held: &["EPERM"],
        body: prlimit_init,
    },
    Attempt {
        id: "own-rlimit",
        category: Processes,
        wall: Wall::Capabilities,
        what: "raise the hard limit of open files",
        source: "setrlimit(2), CAP_SYS_RESOURCE",
        held: &["EPERM"],
        body: raise_own_limit,
    },
    Attempt {
        id: "pid-reuse",
        category: Processes,
        wall: Wall::Capabilities,
        what: "choose the next process id to take over a dead one's number",
        source: "ns_last_pid, CAP_CHECKPOINT_RESTORE",
        held: &["EPERM", "EACCES", "EROFS", "ENOENT"],
        body: pid_reuse,
    },
    Attempt {
        id: "path-proc-root-race",
        category: Paths,
        wall: Wall::Root,
        what: "follow /proc/PID/root while its owner changes roots",
        source: "/proc/PID/root races; CVE-2018-15664",
        held: &["same root"],
        body: proc_root_race,
    },
    Attempt {
        id: "path-proc-self-root",
        category: Paths,
        wall: Wall::Root,
        what: "climb out by /proc/self/root/..",
        source: "path_resolution(7)",
        held: &["same root"],
        body: proc_self_root_climb,
    },
    Attempt {
        id: "path-dirfd-climb",
        category: Paths,
        wall: Wall::Root,
        what: "climb out by .. from a descriptor",
        source: "CVE-2024-21626",
        held: &["same root"],
        body: openat2_escape,
    },
    Attempt {
        id: "priv-no-new-privs",
        category: Privilege,
        wall: Wall::NoNewPrivs,
        what: "gain by a set-uid program",
        source: "PR_SET_NO_NEW_PRIVS(2const)",
        held: &["set"],
        body: setuid_gain,
    },
    Attempt {
        id: "priv-capabilities",
        category: Privilege,
        wall: Wall::Capabilities,
        what: "find a dangerous capability in any set",
        source: "capabilities(7)",
        held: &["none held"],
        body: gain_capability,
    },
    Attempt {
        id: "priv-capset",
        category: Privilege,
        wall: Wall::Capabilities,
        what: "raise CAP_SYS_ADMIN by capset",
        source: "capset(2)",
        held: &["EPERM"],
        body: capset,
    },
    Attempt {
        id: "priv-setuid-unmapped",
        category: Privilege,
        wall: Wall::UserNamespace,
        what: "become an id outside the map",
        source: "user_namespaces(7)",
        held: &["EINVAL", "EPERM"],
        body: setuid_host_range,
    },
    Attempt {
        id: "priv-chown-unmapped",
        category: Privilege,
        wall: Wall::UserNamespace,
        what: "give a file to an id outside the map",
        source: "user_namespaces(7)",
        held: &["EINVAL", "EPERM"],
        body: chown_outside,
    },
    Attempt {
        id: "priv-seccomp",
        category: Privilege,
        wall: Wall::Seccomp,
        what: "run without the filter",
        source: "seccomp(2)",
        held: &["in force"],
        body: undo_seccomp,
    },
    Attempt {
        id: "priv-file-caps",
        category: Privilege,
        wall: Wall::NoNewPrivs,
        what: "gain by file capabilities",
        source: "capabilities(7)",
        held: &["set", "EPERM"],
        body: file_capabilities,
    },
];
