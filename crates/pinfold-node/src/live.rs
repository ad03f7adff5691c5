//! The present boot of a workspace: its guest, its first process, its cgroup.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use pinfold_namespace::{CgroupStats, LastWords, WorkspaceCgroup};
use pinfold_types::{Error, ErrorCode, Result, workspace::Walls};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::{channel::LastFailure, guest::Guest};

/// Longest wait for processes that were killed to be gone.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// A boot. Shared by whoever uses it; a new boot is a new `Live`.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) boot: u64,
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) walls: Walls,
    /// Absent where the machine has no usable cgroups and the operator allowed that.
    pub(crate) cgroup: Option<WorkspaceCgroup>,
    /// Where the guest listens.
    pub(crate) socket: PathBuf,
    pidfd: AsyncFd<OwnedFd>,
    /// Absent for a boot that was found again: it says nothing to a later server.
    last_words: Option<LastWords>,
    guest: RwLock<Option<Guest>>,
    /// Held by whoever dials the guest.
    pub(crate) dialling: tokio::sync::Mutex<LastFailure>,
}

impl Live {
    pub(crate) fn new(
        boot: u64,
        pid: i32,
        start_time: u64,
        walls: Walls,
        cgroup: Option<WorkspaceCgroup>,
        socket: PathBuf,
        pidfd: OwnedFd,
    ) -> Result<Self> {
        let pidfd = watched(pidfd)
            .map_err(|err| Error::internal(format!("cannot watch process {pid}: {err}")))?;
        let cgroup = cgroup.map(|cgroup| cgroup.of_first(pid, start_time));
        let (guest, dialling) = (RwLock::default(), tokio::sync::Mutex::default());
        let last_words = None;
        Ok(Self {
            boot,
            pid,
            start_time,
            walls,
            cgroup,
            socket,
            pidfd,
            last_words,
            guest,
            dialling,
        })
    }

    /// The same, heard when it cannot go on.
    pub(crate) fn heard(self, last_words: LastWords) -> Self {
        Self { last_words: Some(last_words), ..self }
    }

    /// What the first process said, which is why it ended.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.last_words.as_ref()?.take()
    }

    /// The channel to the guest, as it was dialled last: it may have ended since. Who wants one
    /// that is open asks for `Workspace::channel`.
    pub(crate) fn guest(&self) -> Result<Guest> {
        self.guest.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            Error::new(ErrorCode::Unavailable, "the workspace's first process does not answer")
                .hint("try again in a moment, or restart it: pinfold stop, pinfold start")
        })
    }

    /// The channel, if it has not ended.
    pub(crate) fn open_guest(&self) -> Option<Guest> {
        let guest = self.guest.read().unwrap_or_else(PoisonError::into_inner);
        guest.as_ref().filter(|guest| !guest.is_closed()).cloned()
    }

    /// Takes the place of the channel before.
    pub(crate) fn set_guest(&self, guest: impl Into<Option<Guest>>) {
        *self.guest.write().unwrap_or_else(PoisonError::into_inner) = guest.into();
    }

    /// Returns when the first process has ended.
    pub(crate) async fn exited(&self) {
        // A pidfd is readable from the end of its process on, for ever (pidfd_open(2)). An error
        // here means the runtime is going away, and then nothing is waiting.
        let _ = self.pidfd.readable().await;
    }

    /// Whether the first process has ended, as the kernel knows it now.
    pub(crate) fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut watched = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    }

    /// Kills every process. The kernel ends a pid namespace with its first process, the cgroup
    /// covers whoever is still on the way into it.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.thaw();
            if let Err(err) = cgroup.kill() {
                tracing::warn!(pid = self.pid, %err, "a cgroup could not be killed");
            }
        }
    }

    /// Kills every process and waits until the first one, and with it its namespace, is gone.
    pub(crate) async fn kill_and_wait(&self) -> Result<()> {
        self.kill();
        tokio::time::timeout(KILL_WAIT, self.exited()).await.map_err(|_| {
            Error::new(
                ErrorCode::Timeout,
                format!("process {} did not end within 10 s of being killed", self.pid),
            )
            .hint("it may be stuck in the kernel: see its state with ps, and dmesg")
        })
    }

    /// The cgroup's counters, where there is one.
    pub(crate) fn counters(&self) -> Option<CgroupStats> {
        self.cgroup.as_ref().map(WorkspaceCgroup::stats)
    }
}

#[expect(
    deprecated,
    reason = "sound for a descriptor that the value owns; the other one is unsafe"
)]
fn watched(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE)
}
