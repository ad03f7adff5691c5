//! After the last kill: what each caller was promised, its quota, the audit log, what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{Server, until};

use super::{
    agent::{Agent, DISK, MEMORY, MOST},
    promise::{Fate, Told},
    seat::{Ask, Seat},
};

impl Agent {
    /// Everything promised is there, and what was ended is not.
    pub(crate) fn settle(&mut self) {
        for name in self.spaces.keys().cloned().collect::<Vec<_>>() {
            let answer = self.get_surely(&format!("/api/v1/workspaces/{name}"));
            match self.spaces[&name].fate {
                Fate::Gone => assert_eq!(answer.status, 404, "{name} was removed and is back"),
                Fate::Either => panic!("{name} was looked at"),
                Fate::Stands => {
                    assert_eq!(answer.status, 200, "{name} was made and is gone");
                    let owner = answer.json()["session"].as_str().map(str::to_owned);
                    let owners = &self.spaces[&name].owners;
                    assert!(owners.contains(&owner), "{name}: {owner:?}, promised {owners:?}");
                    self.settle_content(&name);
                }
            }
        }
        for index in 0..self.tokens.len() {
            self.present(index);
        }
        for id in self.sessions.keys().cloned().collect::<Vec<_>>() {
            self.show_session(&id);
        }
    }

    fn settle_content(&mut self, name: &str) {
        until("the workspace to start again", Duration::from_secs(30), || {
            let ask = Ask::new("POST", format!("/api/v1/workspaces/{name}/start"));
            self.call("workspace.start", &ask);
            let info = self.get_surely(&format!("/api/v1/workspaces/{name}"));
            (info.json()["state"] == "running").then_some(())
        });
        self.read(name);
        let there = self.snapshots(name);
        for snapshot in self.spaces[name].snapshots.keys() {
            assert!(there.contains_key(snapshot), "{name} lost {snapshot}: {there:?}");
        }
    }

    /// What is counted is what is held, and the quota is as large as it was.
    pub(crate) fn settle_quota(&mut self) {
        self.check_usage();
        let others = self.present_parent();
        for name in self.spaces.keys().cloned().collect::<Vec<_>>() {
            if self.spaces[&name].fate == Fate::Stands {
                self.destroy(&name);
            }
        }
        for _ in 0..2 {
            self.fill(others.as_deref());
        }
    }

    /// The caller's usage, as it is told and as it is.
    fn check_usage(&mut self) -> usize {
        let usage = self.get_surely("/api/v1/whoami").json()["usage"].clone();
        let list = self.get_surely("/api/v1/workspaces").json();
        let count = list["items"].as_array().map(Vec::len).unwrap_or_default();
        assert_eq!(count, self.held(), "{}: {list}", self.stem);
        let held = u64::try_from(count).expect("a count");
        let all =
            [("workspaces", held), ("memory_bytes", held * MEMORY), ("disk_bytes", held * DISK)];
        for (name, is) in all.into_iter().chain([("streams", 0), ("execs", 0)]) {
            let told = usage[name].as_u64();
            // A limit that this machine cannot enforce is not counted.
            let left_out = told.is_none() && name.ends_with("_bytes");
            assert!(left_out || told == Some(is), "{}: {name} is {is}: {usage}", self.stem);
        }
        count
    }

    /// A principal below this one, whose workspaces count for both.
    fn present_parent(&mut self) -> Option<String> {
        let ask = Ask::new("POST", "/api/v1/tokens").json(&json!({ "name": "below" }));
        let answer = self.call("token.create", &ask)?;
        assert!(answer.is_ok(), "{}", answer.text());
        answer.json()["token"].as_str().map(str::to_owned)
    }

    /// Fills the quota from both sides, to the last workspace, and empties it.
    fn fill(&mut self, below: Option<&str>) {
        assert_eq!(self.check_usage(), 0, "{}", self.stem);
        let limits = json!({ "memory_bytes": MEMORY, "disk_bytes": DISK });
        let mut made = Vec::new();
        for turn in 0..=MOST {
            let name = self.new_name("q");
            let body = json!({ "name": name, "limits": limits, "stopped": true });
            let ask = Ask::new("POST", "/api/v1/workspaces").json(&body);
            let token = if turn % 2 == 0 { self.token.as_deref() } else { below };
            let answer = ask.send(&self.seat, token).expect("nobody kills any more");
            if turn < MOST {
                assert!(answer.is_ok(), "{}: {turn}: {}", self.stem, answer.text());
                self.spaces.insert(name.clone(), super::promise::Space::owned_by(None));
                self.space(&name).fate = Fate::Stands;
                made.push(name);
            } else {
                assert_eq!(answer.code(), "quota_exceeded", "{}: {}", self.stem, answer.text());
            }
        }
        assert_eq!(self.check_usage(), MOST);
        for name in made {
            self.destroy(&name);
        }
    }
}

/// The log is whole, and has every answer that was given.
pub(crate) fn audit(server: &Server, seat: &Seat, told: &[Told]) {
    let mut ends: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    let mut from = 1;
    loop {
        let path = format!("/api/v1/audit?from={from}&limit=1000");
        let page = Ask::new("GET", path).send(seat, None).expect("nobody kills any more").json();
        let records = page.as_array().or(page["items"].as_array()).cloned().unwrap_or_default();
        let Some(last) = records.last() else { break };
        from = last["seq"].as_u64().expect("a number") + 1;
        for record in &records {
            let word = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            let (operation, phase) = (word("operation"), word("phase"));
            let ended = if phase == "end" { word("outcome") } else { phase };
            ends.entry(word("request")).or_default().insert((operation, ended));
        }
    }
    for Told { request, operation, ok } in told {
        let found = ends.get(request);
        let there = found.is_some_and(|all| {
            all.iter().any(|(name, ended)| name == operation && (!ok || ended == "ok"))
        });
        assert!(there, "{operation} {request} was answered, ok: {ok}; recorded: {found:?}");
    }
    let verdict = server.pinfold(&["audit", "verify"]);
    assert_eq!(verdict.code, 0, "{} {}", verdict.stdout, verdict.stderr);
    let _ = writeln!(
        std::io::stderr(),
        "audit: {} answers found among {} records; {}",
        told.len(),
        from - 1,
        verdict.stdout
    );
}

/// Names of every workspace that is left to remove.
pub(crate) fn names(seat: &Seat) -> Vec<String> {
    let list = Ask::new("GET", "/api/v1/workspaces?limit=1000").send(seat, None);
    let list = list.expect("nobody kills any more").json();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|item: &Value| item["name"].as_str().map(str::to_owned)).collect()
}
