//! One client with workspaces of its own, and what it was promised about them.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Home, bin, until};

use crate::{
    model::{Known, Random},
    victims::Victim,
};

/// Most workspaces of one worker at once.
const MOST: usize = 5;

/// Exit code of a command line that is wrong in itself: nothing was tried then.
const WRONG_USAGE: i32 = 2;

/// A client.
#[derive(Debug)]
pub(crate) struct Worker {
    index: u64,
    home: Arc<Home>,
    random: Random,
    known: BTreeMap<String, Known>,
    made: u64,
    value: u64,
    acknowledged: Arc<AtomicU64>,
}

/// What `pinfold` answered.
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs `pinfold`; a server that is not there is started by it, as for any user.
fn pinfold(home: &Home, words: &[&str]) -> Answer {
    let output = Command::new(bin("pinfold"))
        .env("PINFOLD_HOME", home.path())
        .env("NO_COLOR", "1")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("pinfold");
    Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Worker {
    pub(crate) fn new(
        index: u64,
        home: Arc<Home>,
        random: Random,
        acknowledged: Arc<AtomicU64>,
    ) -> Self {
        Self { index, home, random, known: BTreeMap::new(), made: 0, value: 0, acknowledged }
    }

    fn call(&self, words: &[&str]) -> Answer {
        let answer = pinfold(&self.home, words);
        assert_ne!(
            answer.code, WRONG_USAGE,
            "{words:?} is not asked for rightly: {}",
            answer.stderr
        );
        if answer.code == 0 {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    fn new_name(&mut self) -> String {
        self.made += 1;
        format!("w{}-{}", self.index, self.made)
    }

    fn any(&mut self) -> Option<String> {
        let names: Vec<String> = self
            .known
            .iter()
            .filter(|(_, known)| !known.removed && !known.uncertain)
            .map(|(name, _)| name.clone())
            .collect();
        self.random.pick(&names).cloned()
    }

    /// One operation, drawn at random.
    pub(crate) fn step(&mut self) {
        let live = self.known.values().filter(|known| !known.removed).count();
        let Some(name) = self.any().filter(|_| live >= 2) else {
            return self.create();
        };
        match self.random.below(24) {
            0..=1 if live < MOST => self.create(),
            2..=6 => self.write(&name),
            7..=10 => self.read(&name),
            11..=12 => self.snapshot(&name),
            13 => self.restore(&name),
            14..=15 if live < MOST => self.fork(&name),
            16 => drop(self.call(&["stop", &name])),
            17 => self.start(&name),
            18 => {
                self.call(&["pause", &name]);
                self.call(&["resume", &name]);
            }
            19..=20 => self.run(),
            21..=22 => self.background(&name),
            _ => self.remove(&name),
        }
    }

    /// A command that is there for a while, and worth killing.
    fn background(&self, name: &str) {
        self.call(&["exec", "--background", name, "--", "sh", "-c", "sleep 8; true"]);
    }

    /// A throw-away workspace, perhaps one that was booted in advance.
    fn run(&mut self) {
        self.value += 1;
        let value = self.value.to_string();
        let answer = self.call(&["run", "--no-stdin", "--", "echo", &value]);
        if answer.code == 0 {
            assert_eq!(answer.stdout.trim(), value, "a run that succeeded has its output");
        }
    }

    fn create(&mut self) {
        let name = self.new_name();
        let answer = self.call(&["create", &name, "--memory", "64M", "--disk", "256M"]);
        let mut known = Known { uncertain: answer.code != 0, ..Known::default() };
        known.marker.acknowledge(0);
        self.known.insert(name, known);
    }

    fn start(&mut self, name: &str) {
        self.call(&["start", name]);
        self.call(&["resume", name]);
    }

    fn write(&mut self, name: &str) {
        self.value += 1;
        let value = self.value;
        let line =
            format!("echo {value} >/var/tmp/marker.new && mv /var/tmp/marker.new /var/tmp/marker");
        let answer =
            self.call(&["exec", "--no-stdin", "--timeout", "30s", "-c", name, "--", &line]);
        let marker = &mut self.known.get_mut(name).expect("known").marker;
        if answer.code == 0 {
            marker.acknowledge(value);
        } else {
            marker.cut_off(value);
        }
    }

    fn read(&mut self, name: &str) {
        let answer = self.call(&[
            "exec",
            "--no-stdin",
            "--timeout",
            "30s",
            "-c",
            name,
            "--",
            "if test -e /var/tmp/marker; then cat /var/tmp/marker; else echo 0; fi",
        ]);
        if answer.code != 0 {
            return self.start(name);
        }
        let Ok(value) = answer.stdout.trim().parse::<u64>() else { return };
        let known = self.known.get_mut(name).expect("known");
        assert!(known.marker.allows(value), "{name} holds {value}, promised {:?}", known.marker);
        if value != 0 {
            known.marker.seen(value);
        }
    }

    fn snapshot(&mut self, name: &str) {
        let snapshot = format!("s{}", self.random.next() % 1_000_000);
        let answer = self.call(&["snapshot", "create", name, &snapshot]);
        if answer.code == 0 {
            let known = self.known.get_mut(name).expect("known");
            known.snapshots.insert(snapshot, known.marker.clone());
        }
    }

    fn restore(&mut self, name: &str) {
        let known = &self.known[name];
        let snapshots: Vec<String> = known.snapshots.keys().cloned().collect();
        let Some(snapshot) = self.random.pick(&snapshots).cloned() else { return };
        let answer = self.call(&["snapshot", "restore", name, &snapshot]);
        let known = self.known.get_mut(name).expect("known");
        let held = known.snapshots[&snapshot].clone();
        known.marker = if answer.code == 0 { held } else { known.marker.or(&held) };
    }

    fn fork(&mut self, name: &str) {
        let child = self.new_name();
        let answer = self.call(&["fork", name, "--name", &child]);
        let marker = self.known[name].marker.clone();
        let known = Known { marker, uncertain: answer.code != 0, ..Known::default() };
        self.known.insert(child, known);
    }

    fn remove(&mut self, name: &str) {
        let answer = self.call(&["rm", name]);
        let known = self.known.get_mut(name).expect("known");
        if answer.code == 0 {
            known.removed = true;
        } else {
            known.uncertain = true;
        }
    }

    /// After the last kill: everything promised is there, everything removed is not.
    pub(crate) fn settle(&mut self) {
        let listed = pinfold(&self.home, &["ls", "--json"]);
        assert_eq!(listed.code, 0, "ls after the kills: {}", listed.stderr);
        let list: serde_json::Value = serde_json::from_str(&listed.stdout).expect("ls prints JSON");
        let items = list.get("items").unwrap_or(&list).as_array().cloned().unwrap_or_default();
        let there = |name: &str| items.iter().any(|item| item["name"] == name);
        let certain: Vec<(String, Known)> = self
            .known
            .iter()
            .filter(|(_, known)| !known.uncertain)
            .map(|(name, known)| (name.clone(), known.clone()))
            .collect();
        for (name, known) in certain {
            if known.removed {
                assert!(!there(&name), "{name} was removed and is back");
                continue;
            }
            assert!(there(&name), "{name} was created and is gone");
            until("the workspace to start again", Duration::from_secs(30), || {
                self.start(&name);
                let info = pinfold(&self.home, &["info", &name, "--json"]);
                info.stdout.contains("\"running\"").then_some(())
            });
            self.read(&name);
            let snapshots = pinfold(&self.home, &["snapshot", "ls", &name, "--json"]);
            for snapshot in known.snapshots.keys() {
                assert!(
                    snapshots.stdout.contains(&format!("\"{snapshot}\"")),
                    "snapshot {snapshot} of {name} is gone: {}",
                    snapshots.stdout
                );
            }
        }
    }

    /// Every name it used.
    pub(crate) fn names(&self) -> Vec<String> {
        self.known.keys().cloned().collect()
    }
}

/// Starts the first server and a first workspace.
pub(crate) fn first_start(home: &Home) {
    let answer = pinfold(home, &["run", "--no-stdin", "--", "true"]);
    assert_eq!(answer.code, 0, "the first start: {}", answer.stderr);
}

/// Removes everything, ends the server, and looks for what is left.
pub(crate) fn end_with_nothing_left(home: &Home, names: &[String]) {
    for name in names {
        let answer = pinfold(home, &["rm", "--force", name]);
        assert_eq!(answer.code, 0, "rm {name}: {}", answer.stderr);
    }
    let snapshots = pinfold(home, &["snapshot", "ls", "--json"]);
    let list: serde_json::Value =
        serde_json::from_str(&snapshots.stdout).expect("snapshot ls prints JSON");
    let items = list.get("items").unwrap_or(&list).as_array().cloned().unwrap_or_default();
    for item in items {
        let id = item["id"].as_str().expect("a snapshot has an id");
        let answer = pinfold(home, &["snapshot", "rm", id]);
        assert_eq!(answer.code, 0, "snapshot rm {id}: {}", answer.stderr);
    }
    // A throw-away workspace waits a while for its client, which may be back after the server is.
    until("the last throw-away workspace's end", Duration::from_mins(2), || {
        let listed = pinfold(home, &["ls", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&listed.stdout).ok()?;
        list.get("items").unwrap_or(&list).as_array()?.is_empty().then_some(())
    });
    // In good order, so that what it kept ready for others goes as well.
    for pid in home.leftovers().processes.into_iter().filter(|pid| Victim::Server.is(*pid)) {
        let target = Pid::from_raw(pid).expect("a pid");
        kill_process(target, Signal::TERM).expect("the server is ours");
        until("the server's end", Duration::from_secs(30), || {
            // What nobody has collected yet has no command line any more.
            (!Victim::Server.is(pid)).then_some(())
        });
    }
    let disks = || -> Vec<String> {
        std::fs::read_dir(home.path().join("pool/disks"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("ws_") || name.starts_with("snap_"))
            .collect()
    };
    // Nothing of a server that ended in good order goes on without it.
    assert_eq!(disks(), Vec::<String>::new(), "disks are left");
    let left: Vec<i32> = home
        .leftovers()
        .processes
        .into_iter()
        .filter(|pid| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            !matches!(comm.trim(), "pinfold") && !comm.starts_with("pinfold-launch")
        })
        .collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
    let groups = home.leftovers();
    assert!(groups.cgroups.is_empty() && groups.cgroup_bases.is_empty(), "{groups:?}");
    let runs = std::fs::read_dir(home.path().join("run")).into_iter().flatten().count();
    assert_eq!(runs, 0, "sockets of removed workspaces are left");
}
