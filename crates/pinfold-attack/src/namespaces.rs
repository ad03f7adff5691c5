//! Moves against namespaces: making new ones, entering the host's, and their back doors.

use std::os::fd::AsRawFd;

use crate::{
    Attempt,
    Category::Namespaces,
    Stop, Tried, Wall,
    raw::{call, check, io},
};

fn unshare(flags: i32) -> Tried {
    // SAFETY: unshare takes flags only.
    check(unsafe { libc::unshare(flags) })?;
    Ok(format!("unshare({flags:#x}) worked"))
}

fn clone_with(flags: i32) -> Tried {
    let child = call(libc::SYS_clone, [flags as usize | libc::SIGCHLD as usize, 0, 0, 0, 0, 0])?;
    if child == 0 {
        // SAFETY: the child does nothing but end.
        unsafe { libc::_exit(0) };
    }
    Ok(format!("clone({flags:#x}) made process {child}"))
}

fn unshare_user() -> Tried {
    unshare(libc::CLONE_NEWUSER)
}
fn unshare_mount() -> Tried {
    unshare(libc::CLONE_NEWNS)
}
fn unshare_net() -> Tried {
    unshare(libc::CLONE_NEWNET)
}
fn unshare_pid() -> Tried {
    unshare(libc::CLONE_NEWPID)
}
fn unshare_cgroup() -> Tried {
    unshare(libc::CLONE_NEWCGROUP)
}
fn unshare_time() -> Tried {
    unshare(0x80)
}
fn clone_user() -> Tried {
    clone_with(libc::CLONE_NEWUSER)
}
fn clone_net_user() -> Tried {
    clone_with(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)
}

fn clone3_user() -> Tried {
    // struct clone_args, first eight 64-bit fields (clone(2)).
    let mut args = [0_u64; 11];
    args[0] = libc::CLONE_NEWUSER as u64;
    args[4] = libc::SIGCHLD as u64;
    let child = call(libc::SYS_clone3, [args.as_ptr() as usize, size_of_val(&args), 0, 0, 0, 0])?;
    if child == 0 {
        // SAFETY: the child does nothing but end.
        unsafe { libc::_exit(0) };
    }
    Ok(format!("clone3 made process {child} in a new user namespace"))
}

fn setns_self() -> Tried {
    let file = std::fs::File::open("/proc/self/ns/mnt").map_err(io)?;
    // SAFETY: a live descriptor.
    check(unsafe { libc::setns(file.as_raw_fd(), 0) })?;
    Ok("setns into the mount namespace worked".into())
}

fn setns_init() -> Tried {
    let file = std::fs::File::open("/proc/1/ns/mnt").map_err(io)?;
    // SAFETY: a live descriptor.
    check(unsafe { libc::setns(file.as_raw_fd(), 0) })?;
    Ok("entered process 1's mount namespace".into())
}

fn setns_pidfd() -> Tried {
    let pidfd = call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0])?;
    let pidfd = i32::try_from(pidfd).map_err(|_| Stop::Nothing("no descriptor"))?;
    // SAFETY: a live descriptor.
    check(unsafe { libc::setns(pidfd, libc::CLONE_NEWNS | libc::CLONE_NEWNET) })?;
    Ok("entered process 1's namespaces by pidfd".into())
}

fn host_pids_visible() -> Tried {
    // Inside an own pid namespace the first process is ours and kernel threads do not exist.
    let comm = std::fs::read_to_string("/proc/2/comm").unwrap_or_default();
    if comm.trim() == "kthreadd" {
        return Ok("the host's kernel threads are visible".into());
    }
    let count = std::fs::read_dir("/proc")
        .map_err(io)?
        .flatten()
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| {
                ["systemd", "sshd", "pinfold-launche", "dockerd"].contains(&comm.trim())
            })
        })
        .count();
    if count > 0 {
        return Ok(format!("{count} processes of the host are visible"));
    }
    Err(Stop::Nothing("none visible"))
}

fn sethostname() -> Tried {
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(io)?;
    // SAFETY: pointer and length of a live buffer.
    check(unsafe { libc::sethostname(before.trim().as_ptr().cast(), before.trim().len()) })?;
    Ok("sethostname worked".into())
}

fn uid_map_is_host_root() -> Tried {
    let map = std::fs::read_to_string("/proc/self/uid_map").map_err(io)?;
    for line in map.lines() {
        let fields: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        if let [inside, outside, count] = fields[..]
            && (outside == 0 || (outside < 65_536 && inside == outside) || count > 1 << 20)
        {
            return Ok(format!("uid {inside} inside is {outside} outside"));
        }
    }
    Err(Stop::Nothing("mapped away"))
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "ns-unshare-user",
        category: Namespaces,
        wall: Wall::Seccomp,
        what: "make a user namespace to gain every capability over it",
        source: "user_namespaces(7); CVE-2022-0185, CVE-2023-0386 start here",
        held: &["EPERM"],
        body: unshare_user,
    },
    Attempt {
        id: "ns-unshare-mount",
        category: Namespaces,
        wall: Wall::Capabilities,
        what: "make a mount namespace",
        source: "mount_namespaces(7)",
        held: &["EPERM"],
        body: unshare_mount,
    },
    Attempt {
        id: "ns-unshare-net",
        category: Namespaces,
        wall: Wall::Capabilities,
        what: "make a network namespace to reach netfilter code",
        source: "CVE-2023-32233 and other nf_tables holes need it",
        held: &["EPERM"],
        body: unshare_net,
    },
    Attempt {
        id: "ns-unshare-pid",
        category: Namespaces,
        wall: Wall::Capabilities,
        what: "make a pid namespace",
        source: "pid_namespaces(7)",
        held: &["EPERM"],
        body: unshare_pid,
    },
    Attempt {
        id: "ns-unshare-cgroup",
        category: Namespaces,
        wall: Wall::Capabilities,
        what: "make a cgroup namespace",
        source: "CVE-2022-0492",
        held: &["EPERM"],
        body: unshare_cgroup,
    },
    Attempt {
        id: "ns-unshare-time",
        category: Namespaces,
        wall: Wall::Capabilities,
        what: "make a time namespace",
        source: "time_namespaces(7)",
        held: &["EPERM"],
        body: unshare_time,
    },
    Attempt {
        id: "ns-clone-user",
        category: Namespaces,
        wall: Wall::Seccomp,
        what: "clone into a user namespace",
        source: "clone(2)",
        held: &["EPERM"],
        body: clone_user,
    },
    Attempt {
        id: "ns-clone-user-net",
        category: Namespaces,
        wall: Wall::Seccomp,
        what: "clone into user and network namespaces at once",
        source: "CVE-2022-2588 exploit preamble",
        held: &["EPERM"],
        body: clone_net_user,
    },
    Attempt {
        id: "ns-clone3-user",
        category: Namespaces,
        wall: Wall::Seccomp,
        what: "the same by clone3, whose flags a filter cannot read",
        source: "seccomp filters cannot follow clone3's pointer; moby issue 42680",
        held: &["ENOSYS", "EPERM"],
        body: clone3_user,
    },
    Attempt {
        id: "ns-setns-self",
        category: Namespaces,
        wall: Wall::Seccomp,
        what: "setns into a namespace held already",
        source: "setns(2)",
        held: &["EPERM"],
        body: setns_self,
    },
    Attempt {
        id: "ns-setns-init",
        category: Namespaces,
        wall: Wall::Undumpable,
        what: "enter process 1's mount namespace",
        source: "nsenter(1)",
        held: &["EACCES", "EPERM"],
        body: setns_init,
    },
    Attempt {
        id: "ns-setns-pidfd",
        category: Namespaces,
        wall: Wall::Seccomp,
        what: "enter process 1's namespaces through a pidfd",
        source: "setns(2) since Linux 5.8",
        held: &["EPERM"],
        body: setns_pidfd,
    },
    Attempt {
        id: "ns-host-pids",
        category: Namespaces,
        wall: Wall::PidNamespace,
        what: "find processes of the host in /proc",
        source: "pid_namespaces(7)",
        held: &["none visible"],
        body: host_pids_visible,
    },
    Attempt {
        id: "ns-sethostname",
        category: Namespaces,
        wall: Wall::Capabilities,
        what: "set the host name",
        source: "sethostname(2)",
        held: &["EPERM"],
        body: sethostname,
    },
    Attempt {
        id: "ns-uid-map",
        category: Namespaces,
        wall: Wall::UserNamespace,
        what: "be the host's root by way of the uid map",
        source: "user_namespaces(7)",
        held: &["mapped away"],
        body: uid_map_is_host_root,
    },
];
