//! Holding a workspace's processes still by signals, where there is no freezer to use: as an
//! ordinary user without a group of cgroup v2.
//!
//! The user namespace belongs to the server's user, who may therefore signal everything in it
//! (`user_namespaces(7)`, kill(2)). Parents are stopped before their children and continued after
//! them, so that no shell sees a child of its stop. Programs can still tell, unlike with a
//! freezer: a handler of SIGCONT runs, and a debugger is shown the SIGSTOP of what it traces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pinfold_types::{Error, ErrorCode, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for all processes to have stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// All processes of a workspace, by the first of them.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    first: i32,
    start_time: u64,
    /// Those that had been stopped by somebody inside, who will continue them.
    theirs: Arc<Mutex<BTreeSet<(i32, u64)>>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    pid: i32,
    parent: i32,
    start_time: u64,
    still: bool,
}

impl Processes {
    pub(super) fn new(first: i32, start_time: u64) -> Self {
        Self { first, start_time, theirs: Arc::default() }
    }

    /// Stops every process, and returns when all are.
    pub(super) fn stop(&self) -> Result<()> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut pause = Duration::from_micros(50);
        // Nobody inside can stop the first process: where it is stopped, all were, by this
        // server or the one before it.
        let again = look_at(self.first).is_some_and(|first| first.still);
        let (mut asked, mut theirs) = (BTreeSet::new(), BTreeSet::new());
        let mut still_before = false;
        loop {
            let all = self.look()?;
            let mut ready = BTreeSet::from([0]);
            for seen in &all {
                let name = (seen.pid, seen.start_time);
                if seen.still {
                    ready.insert(seen.pid);
                    if !again && !asked.contains(&name) {
                        theirs.insert(name);
                    }
                } else if ready.contains(&seen.parent) && asked.insert(name) {
                    // What has been stopped inside and goes on again now is ours from here.
                    theirs.remove(&name);
                    signal(seen.pid, Signal::STOP);
                }
            }
            let still = all.iter().all(|seen| seen.still);
            // A process that was seen stopped may have had a child just before, which only a look
            // that begins after that is sure to see.
            if still && still_before {
                self.keep(again, theirs);
                return Ok(());
            }
            still_before = still;
            if Instant::now() > deadline {
                self.keep(again, theirs);
                self.go_on()?;
                return Err(Error::new(
                    ErrorCode::Timeout,
                    format!("the workspace's processes did not stop in {STOP_TIMEOUT:?}"),
                )
                .hint("one may be stuck in the kernel: look at their states with ps"));
            }
            if !still {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
        }
    }

    fn keep(&self, again: bool, theirs: BTreeSet<(i32, u64)>) {
        if !again {
            *self.theirs.lock().unwrap_or_else(PoisonError::into_inner) = theirs;
        }
    }

    /// Lets go on what [`Self::stop`] stopped. The first process cannot be stopped by anybody
    /// inside, so where it runs there is nothing to do.
    pub(super) fn go_on(&self) -> Result<()> {
        if look_at(self.first).is_none_or(|first| !first.still) {
            return Ok(());
        }
        let all = self.look()?;
        let theirs =
            std::mem::take(&mut *self.theirs.lock().unwrap_or_else(PoisonError::into_inner));
        for seen in all.iter().rev() {
            if !theirs.contains(&(seen.pid, seen.start_time)) {
                signal(seen.pid, Signal::CONT);
            }
        }
        Ok(())
    }

    /// Every process, parents before their children; the first one's parent is told as 0. None of
    /// them when the first one has ended, which ends all.
    fn look(&self) -> Result<Vec<Seen>> {
        let mut children: BTreeMap<i32, Vec<Seen>> = BTreeMap::new();
        let mut all = Vec::new();
        let entries = fs::read_dir("/proc").map_err(Error::internal)?;
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Some(seen) = look_at(pid) else { continue };
            if pid == self.first && seen.start_time == self.start_time {
                all.push(Seen { parent: 0, ..seen });
            } else {
                children.entry(seen.parent).or_default().push(seen);
            }
        }
        if all.is_empty() && crate::process_matches(self.first, self.start_time) {
            return Err(Error::new(
                ErrorCode::CannotEnforce,
                "the workspace's processes cannot be seen, so they cannot be held still",
            )
            .hint("mount /proc without hidepid, or run the server as root"));
        }
        let mut at = 0;
        while let Some(parent) = all.get(at).map(|seen| seen.pid) {
            all.extend(children.remove(&parent).unwrap_or_default());
            at += 1;
        }
        Ok(all)
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has ended meanwhile needs none.
        let _ = kill_process(pid, signal);
    }
}

/// Parent and state of a process from `/proc/PID/stat` (proc(5)); still when all its threads are
/// stopped or have ended.
fn look_at(pid: i32) -> Option<Seen> {
    let (_, parent, start_time) = fields(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let still = threads.flatten().all(|thread| {
        let stat = fs::read(thread.path().join("stat")).ok();
        stat.as_deref()
            .and_then(fields)
            .is_none_or(|(state, ..)| matches!(state, b'T' | b't' | b'Z' | b'X'))
    });
    Some(Seen { pid, parent, start_time, still })
}

/// Fields 3 (state), 4 (parent) and 22 (start time).
fn fields(stat: &[u8]) -> Option<(u8, i32, u64)> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut words = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    let parent = words.next()?.parse().ok()?;
    Some((state, parent, words.nth(17)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;

    struct Tree(Child);

    impl Drop for Tree {
        fn drop(&mut self) {
            for seen in processes(&self.0).look().unwrap_or_default() {
                signal(seen.pid, Signal::KILL);
            }
            let _ = self.0.wait();
        }
    }

    fn processes(child: &Child) -> Processes {
        let pid = i32::try_from(child.id()).expect("a pid");
        Processes::new(pid, crate::start_time(pid).unwrap_or(0))
    }

    #[test]
    fn a_tree_stops_and_goes_on_but_what_was_stopped_inside_stays() {
        let script = "sleep 600 & kill -STOP $!; echo $!; sh -c 'while :; do :; done' & \
                      echo $!; while :; do :; done";
        let mut tree = Tree(
            Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell"),
        );
        let mut lines = BufReader::new(tree.0.stdout.take().expect("piped")).lines();
        let mut next = || lines.next().expect("a line").expect("text").parse().expect("a pid");
        let (stopped, busy): (i32, i32) = (next(), next());
        let still = |pid| look_at(pid).expect("it lives").still;
        let group = processes(&tree.0);
        // The shell's own stop of its first child may not have arrived yet.
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !still(stopped) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        group.stop().expect("stops");
        assert!(group.look().expect("seen").iter().all(|seen| seen.still));
        group.stop().expect("stopping twice changes nothing");
        group.go_on().expect("goes on");
        while still(busy) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!still(busy) && !still(group.first));
        assert!(still(stopped), "somebody inside stopped it");
        group.go_on().expect("nothing to do");
        assert!(still(stopped));
    }

    #[test]
    fn processes_that_are_gone_are_still() {
        let nobody = Processes::new(i32::MAX, 1);
        nobody.stop().expect("nothing to stop");
        nobody.go_on().expect("nothing to continue");
        assert_eq!(
            fields(b"1 (a) b) S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0"),
            Some((b'S', 7, 99))
        );
        assert_eq!(fields(b"1 (a"), None);
    }
}
