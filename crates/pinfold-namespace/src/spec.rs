//! What a launch is asked for and gives back.

use std::{os::fd::OwnedFd, path::PathBuf};

use pinfold_types::{RootMount, WorkspaceId, workspace::Walls};
use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupJoin;

/// A range of host ids: id `n` inside is `base + n` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// Host id of root inside. Never 0.
    pub base: u32,
    /// How many ids; 65536 is usual.
    pub count: u32,
}

/// One start of a workspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Which workspace, for messages.
    pub workspace: WorkspaceId,
    /// Which boot of it, for messages.
    pub boot: u64,
    /// Host name inside, 1 to 63 bytes.
    pub hostname: String,
    /// The root and what covers parts of it. The first has target `/`.
    pub mounts: Vec<RootMount>,
    /// Directory with `upper/N` and `work/N` for mount `N`.
    pub disk: PathBuf,
    /// The program that becomes PID 1. Handed over as a sealed copy in memory.
    pub guest: PathBuf,
    /// Where the guest's listening socket is bound, mode 0600. May be longer than 107 bytes.
    pub socket: PathBuf,
    /// Given to the guest on descriptor 4, which ends after it. Never on disk.
    #[serde(skip)]
    pub guest_config: Vec<u8>,
    /// Host ids of the workspace.
    pub ids: IdRange,
    /// Cgroups to start in.
    pub cgroup: Option<CgroupJoin>,
    /// Allow user and mount namespaces inside.
    pub nested: bool,
    /// The disk ends with this boot: nothing is synced to it, neither by fsync(2) inside nor when
    /// the root is unmounted (overlayfs, "volatile").
    #[serde(default)]
    pub volatile: bool,
    /// `RLIMIT_NOFILE`, soft and hard; the launcher's own limit when absent.
    pub open_files: Option<u64>,
    /// Size of `/dev/shm`, which is charged to the memory limit.
    pub shm_bytes: u64,
}

/// What only measurements and tests ask of a launch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LaunchExtras {
    /// Report how long each step took.
    pub trace: bool,
    /// Walls to leave out, so that the escape suite can show its attacks to be real.
    #[cfg(feature = "weaken")]
    #[serde(default)]
    pub weaken: Vec<Weakness>,
}

impl LaunchExtras {
    /// Steps are reported with their times.
    pub fn traced() -> Self {
        Self {
            trace: true,
            #[cfg(feature = "weaken")]
            weaken: Vec::new(),
        }
    }
}

/// A wall that can be left out. Only compiled for tests of the escape suite.
#[cfg(feature = "weaken")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weakness {
    /// No system call filter.
    Seccomp,
    /// All capabilities stay, over the workspace's own namespaces.
    Capabilities,
    /// Programs may raise their rights at exec.
    NoNewPrivileges,
    /// No Landlock.
    Landlock,
    /// /proc without masks, and user namespaces allowed by their limit.
    Masks,
    /// The whole of the host's /dev; together with [`Self::HostRoot`].
    Devices,
    /// The host's network.
    Network,
    /// The host's host name and cgroup view.
    SystemNames,
    /// The host's root stays in view, at `/host`.
    HostRoot,
    /// A descriptor of the host's root directory stays open, as number 9.
    Descriptor,
    /// The first process can be read and traced.
    Dumpable,
}

impl LaunchExtras {
    /// Whether a wall is left out: never, outside of the escape suite's builds.
    #[cfg(feature = "weaken")]
    pub(crate) fn lacks(&self, wall: Weakness) -> bool {
        self.weaken.contains(&wall)
    }
}

/// Asks whether a wall is left out. Constant, and so compiled away, without the feature.
macro_rules! lacks {
    ($extras:expr, $wall:ident) => {{
        #[cfg(feature = "weaken")]
        let lacks = $extras.lacks($crate::spec::Weakness::$wall);
        #[cfg(not(feature = "weaken"))]
        let lacks = {
            let _ = &$extras;
            false
        };
        lacks
    }};
}
pub(crate) use lacks;

/// A workspace whose guest runs.
#[derive(Debug)]
pub struct Launched {
    /// Host pid of the guest.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: with the pid, a name no later process has.
    pub start_time: u64,
    /// Handle of the guest process.
    pub pidfd: OwnedFd,
    /// The walls as they stand.
    pub walls: Walls,
    /// What the guest says when it cannot go on.
    pub last_words: crate::LastWords,
    /// Steps with the time since the request arrived, in microseconds, when asked for.
    pub trace: Vec<(String, u64)>,
}
