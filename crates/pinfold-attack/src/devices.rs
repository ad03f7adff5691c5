//! Moves through device nodes and terminals.

use crate::{
    Attempt,
    Category::Devices,
    Stop, Tried, Wall,
    raw::{c, check, open},
};

fn try_node(path: &str, major: u32, minor: u32, kind: libc::mode_t) -> Tried {
    // A node that is there, else one of our own making.
    if let Ok(fd) = open(path, libc::O_RDONLY | libc::O_NONBLOCK) {
        // SAFETY: the descriptor was just opened here.
        unsafe { libc::close(fd) };
        return Ok(format!("opened {path}"));
    }
    let own = format!("/tmp/attack-{major}-{minor}");
    let name = c(&own);
    // SAFETY: a live C string.
    check(unsafe { libc::mknod(name.as_ptr(), kind | 0o600, libc::makedev(major, minor)) })?;
    let fd = open(&own, libc::O_RDONLY | libc::O_NONBLOCK)?;
    // SAFETY: the descriptor was just opened here.
    unsafe { libc::close(fd) };
    Ok(format!("opened device {major}:{minor} by an own node"))
}

fn mem() -> Tried {
    try_node("/dev/mem", 1, 1, libc::S_IFCHR)
}
fn port() -> Tried {
    try_node("/dev/port", 1, 4, libc::S_IFCHR)
}
fn kmsg() -> Tried {
    try_node("/dev/kmsg", 1, 11, libc::S_IFCHR)
}
fn kvm() -> Tried {
    try_node("/dev/kvm", 10, 232, libc::S_IFCHR)
}
fn tun() -> Tried {
    try_node("/dev/net/tun", 10, 200, libc::S_IFCHR)
}
fn fuse() -> Tried {
    try_node("/dev/fuse", 10, 229, libc::S_IFCHR)
}
fn loop_control() -> Tried {
    try_node("/dev/loop-control", 10, 237, libc::S_IFCHR)
}
fn disk() -> Tried {
    try_node("/dev/vda", 254, 0, libc::S_IFBLK)
}
fn loop0() -> Tried {
    try_node("/dev/loop0", 7, 0, libc::S_IFBLK)
}
fn console() -> Tried {
    try_node("/dev/tty1", 4, 1, libc::S_IFCHR)
}
fn vsock() -> Tried {
    try_node("/dev/vsock", 10, 121, libc::S_IFCHR)
}
fn userfaultfd() -> Tried {
    try_node("/dev/userfaultfd", 10, 126, libc::S_IFCHR)
}
fn btrfs_control() -> Tried {
    try_node("/dev/btrfs-control", 10, 234, libc::S_IFCHR)
}

fn tiocsti() -> Tried {
    let mut fds = (0, 0);
    // SAFETY: live out-parameters; no name, no attributes.
    check(unsafe {
        libc::openpty(
            &raw mut fds.0,
            &raw mut fds.1,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    })?;
    let byte = b'x';
    // SAFETY: TIOCSTI reads one byte.
    unsafe {
        libc::setsid();
        libc::ioctl(fds.1, libc::TIOCSCTTY, 0);
        check(libc::ioctl(fds.1, libc::TIOCSTI, &byte))?;
    }
    Ok("pushed a byte into a terminal's input".into())
}

fn tioclinux() -> Tried {
    const TIOCLINUX: libc::Ioctl = 0x541c;
    let mut fds = (0, 0);
    // SAFETY: live out-parameters; no name, no attributes.
    check(unsafe {
        libc::openpty(
            &raw mut fds.0,
            &raw mut fds.1,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    })?;
    let mut request = [3_u8, 0];
    // SAFETY: TIOCLINUX reads the first byte as its subcode.
    check(unsafe { libc::ioctl(fds.1, TIOCLINUX, request.as_mut_ptr()) })?;
    Ok("TIOCLINUX pasted into a terminal".into())
}

fn host_ptys() -> Tried {
    // A private devpts starts empty but for what this workspace opened.
    let count = std::fs::read_dir("/dev/pts")
        .map_err(crate::raw::io)?
        .flatten()
        .filter(|entry| entry.file_name() != "ptmx")
        .count();
    if count > 8 {
        Ok(format!("{count} terminals of others"))
    } else {
        Err(Stop::Nothing("none visible"))
    }
}

fn dmesg() -> Tried {
    let mut buffer = [0_u8; 256];
    // SAFETY: a live buffer of the length given; 3 is SYSLOG_ACTION_READ_ALL.
    let count = check(unsafe { libc::klogctl(3, buffer.as_mut_ptr().cast(), 256) })?;
    Ok(format!("read {count} bytes of the kernel log"))
}

fn random_entropy() -> Tried {
    // RNDADDTOENTCNT wants CAP_SYS_ADMIN in the first user namespace.
    let fd = open("/dev/urandom", libc::O_RDWR)?;
    // Below zero is refused after the permission check: armed, not fired.
    let bits = -1_i32;
    // SAFETY: the request reads one int.
    check(unsafe { libc::ioctl(fd, 0x4004_5201, &bits) })?;
    Ok("credited entropy to the host's pool".into())
}

const NODE: &[&str] = &["EPERM", "EACCES"];

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "dev-mem",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open physical memory",
        source: "mem(4)",
        held: NODE,
        body: mem,
    },
    Attempt {
        id: "dev-port",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open I/O ports",
        source: "mem(4)",
        held: NODE,
        body: port,
    },
    Attempt {
        id: "dev-kmsg",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open the kernel log",
        source: "PF-12",
        held: NODE,
        body: kmsg,
    },
    Attempt {
        id: "dev-kvm",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open KVM",
        source: "KVM API attack surface",
        held: NODE,
        body: kvm,
    },
    Attempt {
        id: "dev-tun",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open a TUN device",
        source: "kernel documentation, tuntap",
        held: NODE,
        body: tun,
    },
    Attempt {
        id: "dev-fuse",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open FUSE",
        source: "FUSE races in exploits",
        held: NODE,
        body: fuse,
    },
    Attempt {
        id: "dev-loop-control",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "make a loop device",
        source: "loop(4)",
        held: NODE,
        body: loop_control,
    },
    Attempt {
        id: "dev-disk",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open the host's disk",
        source: "privileged-container escapes",
        held: NODE,
        body: disk,
    },
    Attempt {
        id: "dev-loop0",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open the pool's loop device",
        source: "loop(4)",
        held: NODE,
        body: loop0,
    },
    Attempt {
        id: "dev-console",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open a virtual console",
        source: "console_ioctl(4)",
        held: NODE,
        body: console,
    },
    Attempt {
        id: "dev-vsock",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open the vsock device",
        source: "vsock(7)",
        held: NODE,
        body: vsock,
    },
    Attempt {
        id: "dev-userfaultfd",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "get userfaultfd by its device",
        source: "userfaultfd(2) since Linux 6.1",
        held: NODE,
        body: userfaultfd,
    },
    Attempt {
        id: "dev-btrfs-control",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "open the btrfs control device",
        source: "btrfs(5)",
        held: NODE,
        body: btrfs_control,
    },
    Attempt {
        id: "dev-tiocsti",
        category: Devices,
        wall: Wall::Seccomp,
        what: "push input into a terminal",
        source: "CVE-2017-5226, CVE-2023-28100",
        held: &["EPERM"],
        body: tiocsti,
    },
    Attempt {
        id: "dev-tioclinux",
        category: Devices,
        wall: Wall::Seccomp,
        what: "paste into a virtual console",
        source: "CVE-2023-28100",
        held: &["EPERM"],
        body: tioclinux,
    },
    Attempt {
        id: "dev-host-ptys",
        category: Devices,
        wall: Wall::Devices,
        what: "find terminals of others",
        source: "pts(4)",
        held: &["none visible"],
        body: host_ptys,
    },
    Attempt {
        id: "dev-dmesg",
        category: Devices,
        wall: Wall::Seccomp,
        what: "read the kernel log by syslog(2)",
        source: "syslog(2)",
        held: &["EPERM"],
        body: dmesg,
    },
    Attempt {
        id: "dev-entropy",
        category: Devices,
        wall: Wall::UserNamespace,
        what: "change the host's entropy pool",
        source: "random(4)",
        held: &["EPERM", "EACCES"],
        body: random_entropy,
    },
];
