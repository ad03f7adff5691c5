//! Processes named so that a later one with the same pid is never taken for them.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Field 22 of `/proc/PID/stat` (proc(5)): ticks from boot to the process's start.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may hold anything, so count from its closing bracket.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether `pid` now is the process that started at `start_time`, and is not a zombie.
pub fn process_matches(pid: i32, start_time: u64) -> bool {
    open_pidfd(pid, start_time).is_some()
}

/// A handle of exactly that process, or `None` when it has ended.
pub fn open_pidfd(pid: i32, expected_start: u64) -> Option<OwnedFd> {
    // A pid below 1 names a group or nobody, and rustix takes none.
    if pid < 1 {
        return None;
    }
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after the handle was opened: if the start time is right now, the handle was
    // opened on that process.
    (start_time(pid) == Some(expected_start) && !has_exited(&pidfd)).then_some(pidfd)
}

/// Whether the process behind the handle has ended (it is readable then, `pidfd_open(2)`).
pub(crate) fn has_exited(pidfd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut set = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut set, Some(&now)), Ok(ready) if ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_start_is_the_same_process() {
        let own = i32::try_from(std::process::id()).expect("pids are positive");
        let started = start_time(own).expect("own stat");
        assert!(process_matches(own, started));
        assert!(!process_matches(own, started + 1));
        assert!(!process_matches(0, started));
        assert!(!process_matches(-1, started));
    }
}
