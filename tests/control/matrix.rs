//! Who may do what: every operation, by every kind of caller, beside a table that people wrote.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    client::{Answer, Client},
    house::House,
};

const TABLE: &str = include_str!("matrix.txt");
pub(crate) const CALLERS: [&str; 7] =
    ["nobody", "revoked", "reader", "stranger", "elsewhere", "self", "holder"];

pub(crate) fn table() -> BTreeMap<&'static str, Vec<&'static str>> {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.collect()))
        })
        .collect()
}

/// References that stand for each kind of object, in order of the path's collection.
pub(crate) struct Objects {
    pub(crate) workspace: String,
    pub(crate) snapshot: String,
    token: String,
    pub(crate) session: String,
}

impl Objects {
    fn of(holder: &Client, name: &str) -> Self {
        let made = holder.post("/api/v1/workspaces", &format!("{{\"name\":\"{name}\"}}")).ok();
        let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
        let workspace = id(&made);
        let path = format!("/api/v1/workspaces/{workspace}/snapshots");
        let snapshot = id(&holder.post(&path, "{}").ok());
        let token = holder.post("/api/v1/tokens", &format!("{{\"name\":\"{name}\"}}")).ok();
        let token = id(&token["info"]);
        let session = id(&holder.post("/api/v1/sessions", "{\"client\":\"test\"}").ok());
        Self { workspace, snapshot, token, session }
    }

    fn path(&self, route: &str) -> String {
        let reference = match route.split('/').nth(3) {
            Some("workspaces") => &self.workspace,
            Some("snapshots") => &self.snapshot,
            Some("tokens") => &self.token,
            Some("sessions") => &self.session,
            _ => "host",
        };
        route
            .replace("{ref}", reference)
            .replace("{exec}", "exec_01k8y6f5t0e8jb4yy1w3gq7m2s")
            .replace("{port}", "9")
    }
}

/// What the authorizer said. A request that it lets through is malformed on purpose wherever it
/// would change something, so it ends in another error.
fn verdict(answer: &Answer) -> String {
    let unseen = ["no workspace", "no snapshot", "no token", "no session"];
    match answer.status {
        401 | 403 => answer.status.to_string(),
        404 if answer.body.is_empty() || unseen.iter().any(|words| answer.body.contains(words)) => {
            "404".into()
        }
        0 => panic!("no answer: {answer:?}"),
        _ => "ok".into(),
    }
}

/// A server with everybody in it.
pub(crate) struct Scene {
    pub(crate) house: House,
    pub(crate) target: Objects,
    /// Of the holder, for what is let through.
    pub(crate) spare: Objects,
    /// Of the holder, for what ends something.
    pub(crate) doomed: Objects,
    /// In the order of [`CALLERS`].
    pub(crate) callers: Vec<Client>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let house = House::new("");
        let holder = house.token("holder", "{}");
        let stranger = house.token("stranger", "{}");
        let target = Objects::of(&holder, "target");
        let spare = Objects::of(&holder, "spare");
        let doomed = Objects::of(&holder, "doomed");
        let other = Objects::of(&holder, "other");
        let minted = |body: &str| house.minted(&holder, body);
        let revoked = minted(r#"{"name":"revoked","same_principal":true}"#);
        house.server.pinfold(&["token", "revoke", "revoked"]).ok();
        let reader = minted(
            r#"{"name":"reader","same_principal":true,"scopes":["workspace:read","snapshot:read",
                "files:read","server:read","session:whoami"]}"#,
        );
        let elsewhere = minted(&format!(
            r#"{{"name":"elsewhere","same_principal":true,"workspaces":["{}"]}}"#,
            other.workspace
        ));
        let path = format!("/api/v1/workspaces/{}/token", target.workspace);
        let own = holder.call("POST", &path, None).ok();
        let own = house.client(own["token"].as_str());
        let nobody = house.client(None);
        let callers = vec![nobody, revoked, reader, stranger, elsewhere, own, holder];
        Self { house, target, spare, doomed, callers }
    }

    pub(crate) fn holder(&self) -> &Client {
        self.callers.last().expect("the holder is the last")
    }
}

#[test]
fn everybody_may_what_the_table_says_and_nothing_else() {
    let scene = Scene::new();
    let Scene { house, target, spare, doomed, .. } = &scene;
    let holder = scene.holder();
    let operations = house.owner("/api/v1/operations");
    let before = holder.get(&format!("/api/v1/workspaces/{}", target.workspace)).ok();
    let table = table();
    let mut wrong = Vec::new();
    let all = operations.as_array().expect("a list");
    for op in all {
        let text = |field: &str| op[field].as_str().unwrap_or_default();
        let (name, method, reply) = (text("name"), text("method"), text("reply"));
        let Some(row) = table.get(name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for ((who, caller), expected) in CALLERS.iter().zip(&scene.callers).zip(row) {
            // What is let through is done to something that nobody needs.
            let ends = ["workspace.destroy", "snapshot.remove", "token.revoke", "session.end"];
            let objects = match *who {
                "holder" if ends.contains(&name) => doomed,
                "holder" => spare,
                _ => target,
            };
            let mut path = objects.path(text("path"));
            if reply == "events" && *expected == "ok" {
                path.push_str("?nonsense=1");
            }
            let answer = if reply == "web_socket" && *expected != "ok" {
                caller.upgrade(&path).0
            } else {
                let json = op["body"].get("json").is_some() || op["body"] == "stream";
                caller.call(method, &path, json.then_some(r#"{"nonsense":true}"#))
            };
            let said = verdict(&answer);
            if said != *expected {
                wrong.push(format!(
                    "{name} by {who}: {said} ({} {}), not {expected}",
                    answer.status, answer.body
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(table.len(), all.len(), "the table has operations that do not exist");
    let after = holder.get(&format!("/api/v1/workspaces/{}", target.workspace)).ok();
    for field in ["id", "name", "state", "labels", "limits", "owner"] {
        assert_eq!(before[field], after[field], "{field} was changed by somebody refused");
    }
    // Every refusal is in the log, with who it was and why.
    let records = house.owner("/api/v1/audit?limit=1000");
    let denied = records.as_array().expect("records").iter().filter(|r| r["phase"] == "denied");
    assert!(denied.count() > 100, "refusals are recorded");
    assert_eq!(house.owner("/api/v1/audit/verify")["whole"], true);
    scene.house.server.stop();
}
