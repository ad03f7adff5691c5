//! Which processes belong to a command, and how to end them all.
//!
//! A process that leaves its group and session and whose parent has ended is a child of PID 1 like
//! any other: its ancestry says nothing. So each command is started with a hard limit on real-time
//! CPU (`RLIMIT_RTTIME`, getrlimit(2)) that no program here can reach and that is different for each
//! command. Limits pass to every child, through `setsid`, a cleared environment and a change of
//! user, and a hard limit cannot be raised again; `/proc/PID/limits` shows it to everyone. A
//! process could lower its own, deliberately: then its parents and its session still give it away
//! in most cases, and the workspace's limits hold it in all.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    fs,
    time::Duration,
};

use pinfold_sys::signal::{self, Target};
use rustix::process::{Resource, getrlimit};

/// Rounds of looking for processes that were born meanwhile.
const ROUNDS: usize = 64;
const STOP: i32 = 19;
const KILL: i32 = 9;

/// The limit that marks one command's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Mark {
    /// `RLIMIT_RTTIME`.
    pub(super) const RESOURCE: u32 = 15;

    /// Microseconds; soft and hard.
    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// Gives out marks, and remembers what the guest itself was born with.
#[derive(Debug)]
pub(super) struct Marks {
    base: u64,
    given: Cell<u64>,
    groups: Vec<u32>,
}

impl Default for Marks {
    fn default() -> Self {
        let hard = getrlimit(Resource::Rttime).maximum.unwrap_or(u64::MAX);
        // Inside another workspace the limit is that one's mark already: stay below it.
        let base = if hard > 1 << 62 { 1 << 62 } else { (hard / 2 + 1).next_power_of_two() / 2 };
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            base,
            given: Cell::new(0),
            groups: groups.iter().map(|group| group.as_raw()).collect(),
        }
    }
}

impl Marks {
    /// A mark that no command had before.
    pub(super) fn next(&self) -> Mark {
        let number = self.given.get();
        self.given.set(number.wrapping_add(1));
        Mark(self.base.saturating_sub(number % (self.base / 2).max(1)))
    }

    /// The guest's own supplementary groups.
    pub(super) fn groups(&self) -> &[u32] {
        &self.groups
    }
}

struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    zombie: bool,
}

/// Every process there is, from `/proc`. Those that end meanwhile are left out.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may have spaces and parentheses; the last parenthesis ends it.
            let (_, rest) = stat.rsplit_once(')')?;
            let mut fields = rest.split_ascii_whitespace();
            let state = fields.next()?;
            let parent = fields.next()?.parse().ok()?;
            let session = fields.nth(1)?.parse().ok()?;
            Some(Process { pid, parent, session, zombie: matches!(state, "Z" | "X") })
        })
        .collect()
}

fn has_mark(pid: i32, mark: Mark) -> bool {
    let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else { return false };
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max realtime timeout"))
        .and_then(|values| values.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .is_some_and(|hard| hard == mark.0)
}

/// Living processes of the command with this mark whose first process is `leader`.
pub(super) fn members(mark: Mark, leader: i32) -> Vec<i32> {
    let all = processes();
    let mut found: HashSet<i32> = all
        .iter()
        .filter(|one| one.pid != 1 && (one.session == leader || has_mark(one.pid, mark)))
        .map(|one| one.pid)
        .collect();
    // Children of members, whatever their limits say.
    let parents: HashMap<i32, i32> = all.iter().map(|one| (one.pid, one.parent)).collect();
    for one in &all {
        let (mut line, mut at) = (Vec::new(), one.pid);
        while at > 1 && !found.contains(&at) && line.len() < 4096 {
            line.push(at);
            at = parents.get(&at).copied().unwrap_or(0);
        }
        if found.contains(&at) {
            found.extend(line);
        }
    }
    all.iter().filter(|one| !one.zombie && found.contains(&one.pid)).map(|one| one.pid).collect()
}

/// Kills the whole tree. First everything is stopped until nothing new appears, so that nobody
/// can outrun the second pass by forking.
pub(super) async fn kill(mark: Mark, leader: i32) {
    let mut stopped = HashSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<_> =
            members(mark, leader).into_iter().filter(|pid| stopped.insert(*pid)).collect();
        if new.is_empty() {
            break;
        }
        send(&new, STOP);
    }
    for round in 0..ROUNDS {
        let left = members(mark, leader);
        if left.is_empty() {
            return;
        }
        send(&left, KILL);
        let pause = Duration::from_millis(if round < 8 { 1 } else { 20 });
        tokio::time::sleep(pause).await;
    }
}

fn send(pids: &[i32], number: i32) {
    for pid in pids {
        // Gone already is as good. We are their reaper or an ancestor of it, and run between two
        // reaps, so a number cannot have a new owner for orphans; for others the window is that
        // of one pass.
        drop(signal::send(Target::Process(*pid), number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_and_stay_below_what_we_have_ourselves() {
        let marks = Marks { base: 1 << 62, ..Marks::default() };
        let (a, b) = (marks.next(), marks.next());
        assert!(a != b && a.value() <= 1 << 62 && b.value() <= 1 << 62);
        let nested =
            Marks { base: (a.value() / 2 + 1).next_power_of_two() / 2, ..Marks::default() };
        assert!(nested.next().value() < a.value() && nested.next().value() > 1 << 59);
    }

    #[test]
    fn a_child_its_parent_and_its_session_are_seen() {
        let mut child =
            std::process::Command::new("setsid").args(["sleep", "600"]).spawn().expect("setsid");
        let pid = i32::try_from(child.id()).expect("a pid");
        let me = i32::try_from(std::process::id()).expect("a pid");
        // A child that has not yet called setsid(2) is looked at again.
        let found = std::iter::repeat_with(|| {
            processes().into_iter().find(|one| one.pid == pid).expect("listed")
        })
        .find(|one| one.session == pid);
        child.kill().expect("killed");
        child.wait().expect("reaped");
        let found = found.expect("never ends without one");
        assert!(!found.zombie && found.parent == me);
        assert!(!has_mark(me, Mark(12345)));
    }
}
