//! `/proc` with its masks, and a `/sys` that holds only what programs ask about processors.

use std::os::fd::{AsFd, OwnedFd};

use pinfold_sys::mounts::{NO_DEVICES, NO_EXEC, NO_SUID, READ_ONLY, set_attributes};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::MountAttrFlags,
};

use super::{files, mounts};
use crate::failure::{AtStep, Failure, Step};

/// Files of /proc that speak of the whole machine and that no program needs. Most are for the
/// host's root alone already; the masks hold where a kernel is less strict.
const MASKED_FILES: [&str; 13] = [
    "cmdline",       // how the machine was booted, perhaps with tokens
    "config.gz",     // how its kernel was built
    "partitions",    // its disks
    "diskstats",     // what they do
    "kcore",         // physical memory
    "keys",          // key rings of others
    "key-users",     // who has key rings
    "kmsg",          // kernel log
    "kallsyms",      // kernel addresses
    "sysrq-trigger", // reboot and worse
    "timer_list",    // kernel addresses, other processes' timers
    "sched_debug",   // other processes
    "interrupts",    // timing of other workspaces' work
];

/// Directories of /proc that show the machine's hardware.
const MASKED_DIRECTORIES: [&str; 4] = ["acpi", "scsi", "asound", "bus"];

/// Trees of /proc that stay readable, and whose files the host's root alone could write.
const READ_ONLY_TREES: [&str; 3] = ["sys", "irq", "fs"];

/// Processor facts that thread pools and allocators read.
const SYS_VIEWS: [&str; 2] = ["devices/system/cpu", "kernel/mm/transparent_hugepage"];

/// Mounts taken while the host's own /proc and /sys are still in view: the kernel gives a new
/// one only to who can see one already.
pub(super) struct Kernel {
    proc: OwnedFd,
    sys: OwnedFd,
    views: Vec<(&'static str, OwnedFd)>,
}

impl Kernel {
    pub(super) fn open() -> Result<Self, Failure> {
        let closed = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let proc = mounts::filesystem("proc", &[], closed).at(Step::Proc)?;
        let sys = mounts::filesystem(
            "tmpfs",
            &[("mode", "555"), ("size", "64k"), ("nr_inodes", "64")],
            closed,
        )
        .at(Step::Sys)?;
        let mut views = Vec::new();
        for name in SYS_VIEWS {
            match mounts::clone_of(CWD, format!("/sys/{name}")) {
                Ok(view) => {
                    set_attributes(view.as_fd(), READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC, None)
                        .on(Step::Sys, name)?;
                    views.push((name, view));
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).on(Step::Sys, name),
            }
        }
        Ok(Self { proc, sys, views })
    }

    /// Puts /proc and /sys in place; the root is the workspace's own by now. `/dev/null` must be
    /// there.
    pub(super) fn place(self, nested: bool, masked: bool) -> Result<(), Failure> {
        files::ensure_directory("/sys", 0o755)?;
        mounts::attach(&self.sys, CWD, "/sys").at(Step::Sys)?;
        for directory in ["fs", "fs/cgroup", "kernel", "kernel/mm", "devices", "devices/system"] {
            rustix::fs::mkdirat(&self.sys, directory, Mode::from_raw_mode(0o555))
                .on(Step::Sys, directory)?;
        }
        rustix::fs::mkdirat(&self.sys, "empty", Mode::from_raw_mode(0o555)).at(Step::Sys)?;
        for (name, view) in &self.views {
            rustix::fs::mkdirat(&self.sys, *name, Mode::from_raw_mode(0o555))
                .on(Step::Sys, name)?;
            mounts::attach(view, &self.sys, *name).on(Step::Sys, name)?;
        }
        files::ensure_directory("/proc", 0o555)?;
        mounts::attach(&self.proc, CWD, "/proc").at(Step::Proc)?;
        if !masked {
            return Ok(());
        }
        if nested {
            keep_one_unmasked()?;
        } else {
            forbid_user_namespaces(&self.proc)?;
        }
        self.mask()?;
        // Now that its directories stand, /sys itself is sealed.
        set_attributes(self.sys.as_fd(), READ_ONLY, None).at(Step::Sys)
    }

    fn mask(&self) -> Result<(), Failure> {
        for name in MASKED_FILES {
            self.cover(name, || mounts::clone_of(CWD, "/dev/null"))?;
        }
        for name in MASKED_DIRECTORIES {
            self.cover(name, || {
                let empty = mounts::clone_of(&self.sys, "empty")?;
                seal(&empty)?;
                Ok(empty)
            })?;
        }
        for name in READ_ONLY_TREES {
            self.cover(name, || {
                let tree = mounts::clone_of(&self.proc, name)?;
                seal(&tree)?;
                Ok(tree)
            })?;
        }
        Ok(())
    }

    /// Mounts on `name`, where this kernel has it.
    fn cover(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<(), Failure> {
        let object = || format!("/proc/{name}");
        match rustix::fs::statat(&self.proc, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => found.on(Step::Mask, object())?,
        };
        let cover = make().on(Step::Mask, object())?;
        mounts::attach(&cover, &self.proc, name).on(Step::Mask, object())
    }
}

fn seal(tree: &OwnedFd) -> Result<(), Errno> {
    set_attributes(tree.as_fd(), READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC, None)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A nested container mounts a /proc of its own, which the kernel allows only where an unmasked
/// one is mounted (`mount_too_revealing`). So there is one, beneath another mount that nobody
/// inside can take away: in the workspace for want of `CAP_SYS_ADMIN`, in a nested namespace
/// because inherited mounts are locked (`mount_namespaces(7)`).
fn keep_one_unmasked() -> Result<(), Failure> {
    const PLACE: &str = "/dev/.proc";
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let cover = || {
        let options = [("mode", "000"), ("size", "4k"), ("nr_inodes", "8")];
        mounts::filesystem("tmpfs", &options, closed).on(Step::Proc, PLACE)
    };
    let (below, above) = (cover()?, cover()?);
    rustix::fs::mkdir(PLACE, Mode::empty()).on(Step::Proc, PLACE)?;
    mounts::attach(&below, CWD, PLACE).on(Step::Proc, PLACE)?;
    rustix::fs::mkdirat(&below, "proc", Mode::empty()).on(Step::Proc, PLACE)?;
    let proc = mounts::filesystem("proc", &[], closed).on(Step::Proc, PLACE)?;
    mounts::attach(&proc, &below, "proc").on(Step::Proc, PLACE)?;
    mounts::attach(&above, CWD, PLACE).on(Step::Proc, PLACE)
}

/// `user_namespaces(7)`: the limit counts for this namespace and all beneath it.
fn forbid_user_namespaces(proc: &OwnedFd) -> Result<(), Failure> {
    let file = rustix::fs::openat(
        proc,
        "sys/user/max_user_namespaces",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Step::ForbidNamespaces)?;
    rustix::io::write(&file, b"0").at(Step::ForbidNamespaces).map(drop)
}
