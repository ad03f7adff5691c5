//! Which step of a launch failed, and what mends it.

use std::fmt;

use pinfold_types::{Error, ErrorCode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// A step of a launch. Each system call of the way has its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Step { $($(#[$doc])* $variant,)* }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

steps! {
    /// The request itself.
    Request = "reading the launch request";
    /// Copy of the guest program.
    GuestProgram = "preparing the guest program";
    /// First fork.
    Fork = "starting a helper for the launch";
    /// cgroup.procs.
    JoinCgroup = "joining the cgroup";
    /// clone3 with namespaces.
    Namespaces = "creating the namespaces";
    /// `uid_map` and `gid_map`.
    MapIds = "mapping the workspace's ids";
    /// `open_tree`.
    OpenTree = "opening the file tree";
    /// `mount_setattr`.
    IdmapTree = "mapping the owners of the file tree";
    /// bind and listen.
    GuestSocket = "binding the guest's socket";
    /// `SCM_RIGHTS`.
    HandOver = "handing the mounts to the workspace";
    /// lo.
    Loopback = "bringing the loopback up";
    /// sethostname.
    Hostname = "setting the host name";
    /// setresuid and friends.
    BecomeRoot = "becoming root inside";
    /// tmpfs for staging.
    Staging = "preparing the place for mounts";
    /// overlay.
    Overlay = "mounting the overlay on";
    /// A read-only view.
    View = "mounting the read-only view on";
    /// `pivot_root`.
    PivotRoot = "changing the root";
    /// umount of the old root.
    DetachHost = "detaching the host's root";
    /// A directory to mount on.
    MountPoint = "making the mount point";
    /// /proc.
    Proc = "mounting /proc";
    /// A mask in /proc.
    Mask = "masking";
    /// /sys.
    Sys = "mounting /sys";
    /// /dev.
    Dev = "building /dev";
    /// /run.
    Run = "mounting /run";
    /// /etc/hosts and friends.
    EtcFile = "writing";
    /// `user.max_user_namespaces`.
    ForbidNamespaces = "forbidding further user namespaces";
    /// setrlimit.
    ResourceLimit = "setting the resource limit";
    /// Signals.
    Signals = "resetting signals";
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges = "setting no_new_privs";
    /// Landlock.
    Landlock = "restricting with Landlock";
    /// Capabilities.
    Capabilities = "dropping capabilities";
    /// Descriptors.
    Descriptors = "placing the guest's descriptors";
    /// seccomp.
    Seccomp = "installing the seccomp filter";
    /// execveat.
    Exec = "starting the guest";
}

/// A failed step with the kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Failure {
    /// Which step.
    pub step: Step,
    /// What it was done to, where that is not in the step's name: a path, a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// errno(3), 0 where the kernel gave none.
    pub errno: i32,
    /// Said instead of the errno's text when not empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if self.errno != 0 {
            write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl Failure {
    pub(crate) fn new(step: Step, object: impl Into<String>, errno: Errno) -> Self {
        Self { step, object: object.into(), errno: errno.raw_os_error(), detail: String::new() }
    }

    pub(crate) fn said(step: Step, object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { step, object: object.into(), errno: 0, detail: detail.into() }
    }

    fn kernel_said(&self) -> Errno {
        // The range of errnos that the kernel can return (linux/err.h).
        match self.errno {
            1..=4095 => Errno::from_raw_os_error(self.errno),
            _ => Errno::IO,
        }
    }

    /// What a caller can do about it.
    pub fn mend(&self) -> Option<String> {
        let errno = self.kernel_said();
        let text = match (self.step, errno) {
            (_, Errno::NOSPC | Errno::DQUOT) if self.step == Step::Namespaces => {
                "too many namespaces, or none allowed: raise the sysctls user.max_*_namespaces, as in \
                 `sysctl -w user.max_user_namespaces=65536`"
            }
            (_, Errno::NOSPC | Errno::DQUOT) => "free space on the workspace's disk or the pool",
            (_, Errno::MFILE | Errno::NFILE) => "raise the server's limit of open files",
            (Step::Fork | Step::Namespaces, Errno::AGAIN | Errno::NOMEM) => {
                "the machine is out of processes or memory; stop a workspace and try again"
            }
            (Step::Namespaces, Errno::PERM | Errno::INVAL | Errno::NOSYS) => {
                "user namespaces are off here: set the sysctls kernel.unprivileged_userns_clone=1 \
                 and user.max_user_namespaces, or run as root; `pinfold doctor` tells which"
            }
            (Step::MapIds, _) => {
                "as an ordinary user, install uidmap and add your user to /etc/subuid and \
                 /etc/subgid (`usermod --add-subuids 100000-165535 --add-subgids 100000-165535`)"
            }
            (Step::IdmapTree, _) => {
                "keep PINFOLD_HOME on ext4, xfs or btrfs: this filesystem cannot map owners"
            }
            (Step::Overlay, Errno::NODEV) => "the kernel has no overlay: `modprobe overlay`",
            (Step::Overlay, Errno::INVAL | Errno::PERM) => {
                "the workspace's disk must be on a filesystem that overlay accepts as upper layer \
                 (ext4, xfs, btrfs), on Linux 6.1 or later"
            }
            (Step::GuestProgram, Errno::ACCESS | Errno::PERM) => {
                "set the sysctl vm.memfd_noexec to 0 or 1"
            }
            (Step::Proc, Errno::PERM) => {
                "the host's own /proc is partly covered, so the kernel refuses a fresh one: run \
                 Pinfold outside of that container or without its /proc masks"
            }
            (Step::Seccomp | Step::Landlock, _) => {
                "this wall needs a kernel with CONFIG_SECCOMP_FILTER and, where it is listed, \
                 Landlock; see `pinfold doctor`"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let errno = failure.kernel_said();
        let code = match (failure.step, errno) {
            (Step::Namespaces, Errno::NOSPC) => ErrorCode::CannotEnforce,
            (_, Errno::NOSPC | Errno::DQUOT) => ErrorCode::DiskFull,
            (Step::Request, _) => ErrorCode::Internal,
            (_, Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
                ErrorCode::Unavailable
            }
            _ => ErrorCode::CannotEnforce,
        };
        let error = Error::new(code, format!("the workspace cannot start: {failure}"));
        match failure.mend() {
            Some(mend) => error.hint(mend),
            None => error,
        }
    }
}

/// Turns a system call's error into the failure of a step.
pub(crate) trait AtStep<T> {
    /// The step has no object of its own.
    fn at(self, step: Step) -> Result<T, Failure>;
    /// The step was done to `object`.
    fn on(self, step: Step, object: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: ToErrno> AtStep<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, "", error.to_errno()))
    }
    fn on(self, step: Step, object: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, object.to_string(), error.to_errno()))
    }
}

pub(crate) trait ToErrno {
    fn to_errno(&self) -> Errno;
}

impl ToErrno for Errno {
    fn to_errno(&self) -> Errno {
        *self
    }
}

impl ToErrno for std::io::Error {
    fn to_errno(&self) -> Errno {
        Errno::from_io_error(self).unwrap_or(Errno::IO)
    }
}
