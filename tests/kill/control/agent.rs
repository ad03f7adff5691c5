//! One caller: what it does, drawn at random, and what it then knows.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    promise::{Fate, Minted, Space, Told},
    seat::{Answer, Ask, Seat},
};
use crate::model::Random;

/// Workspaces that a caller with a quota may hold.
pub(crate) const MOST: usize = 3;
/// Memory of each.
pub(crate) const MEMORY: u64 = 64 << 20;
/// Its disk.
pub(crate) const DISK: u64 = 256 << 20;
/// The file that is written and read.
const FILE: &str = "/var/tmp/marker";

/// A caller.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) stem: String,
    /// Absent: the owner, over the unix socket, without a quota.
    pub(crate) token: Option<String>,
    pub(crate) seat: Arc<Seat>,
    pub(crate) random: Random,
    pub(crate) spaces: BTreeMap<String, Space>,
    pub(crate) sessions: BTreeMap<String, Fate>,
    pub(crate) tokens: Vec<Minted>,
    pub(crate) told: Vec<Told>,
    made: u64,
}

impl Agent {
    pub(crate) fn new(stem: &str, token: Option<String>, seat: Arc<Seat>, random: Random) -> Self {
        Self {
            stem: stem.to_owned(),
            token,
            seat,
            random,
            spaces: BTreeMap::new(),
            sessions: BTreeMap::new(),
            tokens: Vec::new(),
            told: Vec::new(),
            made: 0,
        }
    }

    /// What it has from the start: workspaces, a session, a token.
    pub(crate) fn begin(&mut self) {
        for _ in 0..2 {
            self.create();
        }
        self.begin_session();
        self.mint();
    }

    /// One operation.
    pub(crate) fn step(&mut self) {
        self.look_at_left();
        let Some(name) = self.any_space() else { return self.create() };
        match self.random.below(32) {
            0..=1 => self.create(),
            2..=5 => self.write(&name),
            6..=9 => self.read(&name),
            10..=11 => self.exec(&name),
            12 => self.snapshot(&name),
            13 => self.remove_snapshot(&name),
            14 => self.restore(&name),
            15..=16 => self.fork(&name),
            17 if self.held() > 1 => self.destroy(&name),
            17..=20 => self.mint(),
            21 => self.revoke_any(),
            22..=24 => self.present_any(),
            25..=26 => self.begin_session(),
            27 => self.end_session(),
            28 => self.use_session(),
            29 => self.adopt(&name),
            30 => self.take_over(),
            _ => self.leave(),
        }
    }

    /// Calls, and remembers what the audit log must say of it.
    pub(crate) fn call(&mut self, operation: &'static str, ask: &Ask) -> Option<Answer> {
        let answer = ask.send(&self.seat, self.token.as_deref())?;
        self.note(operation, &answer);
        assert!(answer.status < 500, "{ask:?}: {} {}", answer.status, answer.text());
        Some(answer)
    }

    pub(crate) fn note(&mut self, operation: &'static str, answer: &Answer) {
        // That the owner mistyped a name is no refusal.
        let refused = self.token.is_some() && matches!(answer.status, 403 | 404);
        if !operation.is_empty() && !answer.replayed && (answer.is_ok() || refused) {
            let request = answer.request.clone();
            self.told.push(Told { request, operation, ok: answer.is_ok() });
            if answer.is_ok() {
                self.seat.changed();
            }
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> Option<Answer> {
        self.call("", &Ask::new("GET", path))
    }

    /// Until it is answered.
    pub(crate) fn get_surely(&mut self, path: &str) -> Answer {
        loop {
            if let Some(answer) = self.get(path) {
                return answer;
            }
        }
    }

    pub(crate) fn new_name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{}-{kind}{}", self.stem, self.made)
    }

    fn with(&self, fate: impl Fn(Fate) -> bool) -> Vec<String> {
        let fitting = self.spaces.iter().filter(|(_, space)| fate(space.fate));
        fitting.map(|(name, _)| name.clone()).collect()
    }

    fn any_space(&mut self) -> Option<String> {
        let names = self.with(|fate| fate == Fate::Stands);
        self.random.pick(&names).cloned()
    }

    /// Workspaces that stand.
    pub(crate) fn held(&self) -> usize {
        self.with(|fate| fate == Fate::Stands).len()
    }

    fn room(&self) -> bool {
        self.with(|fate| fate != Fate::Gone).len() < MOST
    }

    pub(crate) fn space(&mut self, name: &str) -> &mut Space {
        self.spaces.get_mut(name).expect("a name that was drawn is known")
    }

    /// No more than the quota is there, and nothing is refused that would fit.
    fn check_refusal(&self, answer: &Answer) {
        assert!(self.token.is_none() || self.held() <= MOST, "more is held than the quota allows");
        if answer.code() == "quota_exceeded" {
            assert!(!self.room(), "{} is refused what would fit: {}", self.stem, answer.text());
        }
    }

    fn create(&mut self) {
        if self.token.is_none() && !self.room() {
            return;
        }
        let name = self.new_name("w");
        let session = self.any_session().filter(|_| self.random.below(2) == 0);
        let key = (self.random.below(3) == 0).then(|| format!("key-{name}"));
        let limits = json!({ "memory_bytes": MEMORY, "disk_bytes": DISK });
        let stopped = self.random.below(2) == 0;
        let mut ask = Ask::new("POST", "/api/v1/workspaces")
            .json(&json!({ "name": name, "limits": limits, "stopped": stopped }));
        for (header, value) in [("Pinfold-Session", &session), ("Idempotency-Key", &key)] {
            if let Some(value) = value {
                ask = ask.header(header, value);
            }
        }
        self.spaces.insert(name.clone(), Space::owned_by(session));
        let mut cut_off = false;
        loop {
            match self.call("workspace.create", &ask) {
                Some(answer) if answer.is_ok() => {
                    self.space(&name).fate = Fate::Stands;
                    self.check_refusal(&answer);
                    return self.repeat(&ask, &name, key.is_some(), &answer);
                }
                // The first try was made, and its answer lost.
                Some(answer) if cut_off && answer.status == 409 => return self.look(&name),
                Some(answer) => {
                    assert_eq!(answer.status, 429, "{}", answer.text());
                    if cut_off {
                        return self.look(&name);
                    }
                    self.space(&name).fate = Fate::Gone;
                    return self.check_refusal(&answer);
                }
                None if key.is_some() => cut_off = true,
                None => return self.look(&name),
            }
        }
    }

    /// A retry with the key of a call that was answered makes nothing.
    fn repeat(&mut self, ask: &Ask, name: &str, keyed: bool, first: &Answer) {
        if !keyed {
            return;
        }
        let Some(again) = self.call("workspace.create", ask) else { return };
        if again.generation == first.generation {
            assert!(again.is_ok() && again.replayed, "{name}: {} {}", again.status, again.text());
        }
        if again.is_ok() {
            assert_eq!(again.json()["id"], first.json()["id"], "a key made two of {name}");
        }
    }

    /// After a call that was cut off: what is there is there for good.
    pub(crate) fn look(&mut self, name: &str) {
        let answer = self.get_surely(&format!("/api/v1/workspaces/{name}"));
        self.space(name).fate = match answer.status {
            200 => Fate::Stands,
            404 => Fate::Gone,
            _ => panic!("{name}: {} {}", answer.status, answer.text()),
        };
    }

    pub(crate) fn destroy(&mut self, name: &str) {
        let ask = Ask::new("DELETE", format!("/api/v1/workspaces/{name}"));
        self.space(name).fate = Fate::Either;
        let mut cut_off = false;
        loop {
            match self.call("workspace.destroy", &ask) {
                Some(answer) if answer.is_ok() || (cut_off && answer.status == 404) => break,
                Some(answer) => assert_eq!(answer.status, 429, "{name}: {}", answer.text()),
                None => cut_off = true,
            }
        }
        self.space(name).fate = Fate::Gone;
    }

    fn content(name: &str) -> String {
        format!("/api/v1/workspaces/{name}/files/content?path={FILE}")
    }

    fn write(&mut self, name: &str) {
        let value = self.random.next() >> 1;
        let ask = Ask::new("PUT", Self::content(name)).bytes(value.to_string());
        match self.call("file.write", &ask) {
            Some(answer) if answer.is_ok() => self.space(name).marker.acknowledge(value),
            Some(answer) => self.wake(name, &answer),
            None => self.space(name).marker.cut_off(value),
        }
    }

    pub(crate) fn read(&mut self, name: &str) {
        let Some(answer) = self.get(&Self::content(name)) else { return };
        let value = match answer.status {
            200 => answer.text().trim().parse().expect("what was written is a number"),
            404 => 0,
            _ => return self.wake(name, &answer),
        };
        let marker = &mut self.space(name).marker;
        assert!(marker.allows(value), "{name} holds {value}, promised {marker:?}");
        marker.seen(value);
    }

    /// A restore that was cut off may have left it stopped.
    pub(crate) fn wake(&mut self, name: &str, answer: &Answer) {
        if answer.status == 409 {
            self.call(
                "workspace.start",
                &Ask::new("POST", format!("/api/v1/workspaces/{name}/start")),
            );
        } else {
            assert_eq!(answer.status, 429, "{name}: {}", answer.text());
        }
    }

    fn exec(&mut self, name: &str) {
        let body = json!({ "command": { "shell": "sleep 2; true" } });
        let ask = Ask::new("POST", format!("/api/v1/workspaces/{name}/execs")).json(&body);
        if let Some(answer) = self.call("exec.start", &ask).filter(|answer| !answer.is_ok()) {
            self.wake(name, &answer);
        }
    }

    fn snapshot(&mut self, name: &str) {
        let snapshot = self.new_name("s");
        let ask = Ask::new("POST", format!("/api/v1/workspaces/{name}/snapshots"))
            .json(&json!({ "name": snapshot }));
        let answer = self.call("snapshot.create", &ask);
        if answer.is_some_and(|answer| answer.is_ok()) {
            let space = self.space(name);
            let marker = space.marker.clone();
            space.snapshots.insert(snapshot, marker);
        }
    }

    /// The ids of a workspace's snapshots by name.
    pub(crate) fn snapshots(&mut self, name: &str) -> BTreeMap<String, String> {
        let answer = self.get_surely(&format!("/api/v1/workspaces/{name}/snapshots"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let word = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let all = answer.json()["items"].as_array().cloned().unwrap_or_default();
        all.iter().map(|item| (word(item, "name"), word(item, "id"))).collect()
    }

    fn remove_snapshot(&mut self, name: &str) {
        let held: Vec<String> = self.space(name).snapshots.keys().cloned().collect();
        let Some(snapshot) = self.random.pick(&held).cloned() else { return };
        let ids = self.snapshots(name);
        let id = ids.get(&snapshot).unwrap_or_else(|| panic!("{name} lost {snapshot}: {ids:?}"));
        let ask = Ask::new("DELETE", format!("/api/v1/snapshots/{id}"));
        let answer = self.call("snapshot.remove", &ask);
        // Cut off, it may be there or not, and nothing is said of it any more.
        self.space(name).snapshots.remove(&snapshot);
        if answer.is_some_and(|answer| answer.is_ok()) {
            assert!(!self.snapshots(name).contains_key(&snapshot), "{snapshot} is back");
        }
    }

    fn restore(&mut self, name: &str) {
        let held: Vec<String> = self.space(name).snapshots.keys().cloned().collect();
        let Some(snapshot) = self.random.pick(&held).cloned() else { return };
        let ask = Ask::new("POST", format!("/api/v1/workspaces/{name}/restore"))
            .json(&json!({ "snapshot": snapshot }));
        let answer = self.call("workspace.restore", &ask);
        let space = self.space(name);
        let held = space.snapshots[&snapshot].clone();
        space.marker = match answer {
            Some(answer) if answer.is_ok() => held,
            _ => space.marker.or(&held),
        };
    }

    fn fork(&mut self, name: &str) {
        if self.token.is_none() && !self.room() {
            return;
        }
        let child = self.new_name("f");
        let ask = Ask::new("POST", format!("/api/v1/workspaces/{name}/fork"))
            .json(&json!({ "name": child }));
        let marker = self.space(name).marker.clone();
        let space = Space { marker, ..Space::owned_by(None) };
        self.spaces.insert(child.clone(), space);
        match self.call("workspace.fork", &ask) {
            Some(answer) if answer.is_ok() => {
                let made = answer.json()[0]["workspace"]["name"] == child.as_str();
                self.space(&child).fate = if made { Fate::Stands } else { Fate::Gone };
                self.check_refusal(&answer);
            }
            Some(answer) => {
                self.space(&child).fate = Fate::Gone;
                self.check_refusal(&answer);
            }
            None => self.look(&child),
        }
    }

    /// Asks for more than there is room for, and does not wait for the answers: a caller that
    /// goes away takes nothing with it. (It may have met the next server already.)
    fn leave(&mut self) {
        let Some(token) = self.token.clone() else { return };
        let names: Vec<String> = (0..=MOST).map(|_| self.new_name("l")).collect();
        let (generation, _) = self.seat.here();
        for name in names {
            let limits = json!({ "memory_bytes": MEMORY, "disk_bytes": DISK });
            Ask::new("POST", "/api/v1/workspaces")
                .json(&json!({ "name": name, "limits": limits, "stopped": true }))
                .leave(&self.seat, &token);
            let left = Some(generation + 1);
            self.spaces.insert(name, Space { left, ..Space::owned_by(None) });
        }
    }

    /// What it left behind at a server that is gone was made or will never be.
    pub(crate) fn look_at_left(&mut self) {
        let (now, _) = self.seat.here();
        let left = |space: &Space| space.left.is_some_and(|then| then < now);
        let all: Vec<_> = self.spaces.iter().filter(|(_, space)| left(space)).collect();
        for name in all.into_iter().map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.look(&name);
            self.space(&name).left = None;
        }
        // However many were asked for.
        let listed = self.get_surely("/api/v1/workspaces").json();
        let listed = listed["items"].as_array().map(Vec::len).unwrap_or_default();
        assert!(self.token.is_none() || listed <= MOST, "{} holds {listed}", self.stem);
    }
}
