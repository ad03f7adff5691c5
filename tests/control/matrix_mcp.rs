//! The same table over MCP: a tool lets a caller do what its operations are to them, and nothing
//! that has no tool is there at all.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    client::Client,
    matrix::{CALLERS, Objects, Scene, table},
};

/// The page that lists every tool with its operations; a test of `pinfold-mcp` keeps it true.
const PAGE: &str = include_str!("../../docs/mcp.md");
/// What a tool does only where the caller may, and leaves out of its answer where not.
const OPTIONAL: &[&str] = &["workspace.stats", "port.list"];
const EXEC: &str = "exec_01k8y6f5t0e8jb4yy1w3gq7m2s";

/// A call: the operations that it needs, in their order, the tool and its arguments.
fn cases(on: &Objects) -> Vec<(Vec<&'static str>, &'static str, Value)> {
    let (ws, snapshot) = (&on.workspace, &on.snapshot);
    let with = |mut more: Value| {
        more["workspace"] = ws.as_str().into();
        more
    };
    let manage = |action: &str| {
        let mut call = with(json!({"action": action, "path": "/data/none", "mode": "0600"}));
        if action == "move" {
            call["to"] = "/data/to".into();
        }
        call
    };
    let control = |action: &str| with(json!({"action": action}));
    vec![
        // What would make something asks for what cannot be.
        (vec!["workspace.create"], "workspace_create", json!({"image": "no-such-image"})),
        (vec!["workspace.fork"], "workspace_fork", with(json!({"name": "other"}))),
        (vec!["snapshot.fork"], "workspace_fork", json!({"snapshot": snapshot, "name": "other"})),
        (vec!["image.pull"], "image_pull", json!({"reference": "127.0.0.1:1/none:none"})),
        (vec!["workspace.list"], "workspace_list", json!({})),
        (vec!["workspace.read"], "workspace_info", with(json!({}))),
        (vec!["workspace.update"], "workspace_update", with(json!({"labels": {}}))),
        (vec!["workspace.logs"], "workspace_logs", with(json!({}))),
        (vec!["exec.run"], "exec", with(json!({"command": "true"}))),
        (vec!["exec.run"], "file_search", with(json!({"path": "/etc", "glob": "hostname"}))),
        (vec!["exec.start"], "exec_start", with(json!({"command": "true"}))),
        (vec!["exec.list"], "exec_list", with(json!({}))),
        (vec!["exec.list", "exec.attach"], "exec_output", with(json!({"exec_id": EXEC}))),
        (vec!["exec.signal"], "exec_kill", with(json!({"exec_id": EXEC}))),
        (vec!["file.stat", "file.read"], "file_read", with(json!({"path": "/etc/hostname"}))),
        (vec!["file.write"], "file_write", with(json!({"path": "/data/a", "content": "a"}))),
        (
            vec!["file.read", "file.write"],
            "file_edit",
            with(json!({"path": "/data/a", "edits": [{"old": "a", "new": "b"}]})),
        ),
        (vec!["file.stat", "file.list"], "file_list", with(json!({"path": "/"}))),
        (vec!["file.mkdir"], "file_manage", manage("mkdir")),
        (vec!["file.rename"], "file_manage", manage("move")),
        (vec!["file.remove"], "file_manage", manage("remove")),
        (vec!["file.chmod"], "file_manage", manage("chmod")),
        (vec!["snapshot.create"], "snapshot_create", with(json!({}))),
        (vec!["workspace.snapshots"], "snapshot_list", with(json!({}))),
        (vec!["snapshot.list"], "snapshot_list", json!({})),
        (vec!["server.read", "image.list"], "server_info", json!({})),
        (vec!["server.read", "image.list", "server.doctor"], "server_info", json!({"check": true})),
        (vec!["session.whoami", "session.list"], "session_info", json!({})),
        (vec!["session.adopt"], "session_adopt", json!({"all_orphans": true})),
        (vec!["session.takeover"], "session_adopt", json!({"session": on.session})),
        (vec!["workspace.pause"], "workspace_control", control("pause")),
        (vec!["workspace.resume"], "workspace_control", control("resume")),
        (vec!["workspace.stop"], "workspace_control", control("stop")),
        (vec!["workspace.restore"], "snapshot_restore", with(json!({"snapshot": snapshot}))),
        (vec!["workspace.start"], "workspace_control", control("start")),
        (vec!["snapshot.remove"], "snapshot_remove", json!({"snapshot": snapshot})),
        (vec!["workspace.destroy"], "workspace_destroy", with(json!({}))),
    ]
}

/// Operations that the page gives to tools.
fn offered() -> BTreeSet<&'static str> {
    let rows =
        PAGE.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 5);
    rows.filter_map(|row| row.split('|').nth(4))
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().trim_matches('`'))
        .collect()
}

/// A request that stands alone.
fn ask(caller: &Client, method: &str, name: &str, mut params: Value) -> (u16, Value) {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "matrix", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let headers = format!(
        "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: {method}\r\nMcp-Name: {name}\r\n"
    );
    let answer = caller.call_with("POST", "/mcp", &headers, Some(&message.to_string()));
    let body = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    (answer.status, body)
}

/// What the authorizer said.
fn verdict((status, body): &(u16, Value)) -> String {
    if *status != 200 {
        return status.to_string();
    }
    let about = &body["result"]["_meta"]["io.pinfold/error"];
    let message = about["message"].as_str().unwrap_or_default();
    let unseen = ["no workspace", "no snapshot", "no token", "no session"];
    match about["code"].as_str() {
        Some("forbidden") => "403".into(),
        Some("not_found") if unseen.iter().any(|words| message.starts_with(words)) => "404".into(),
        _ => "ok".into(),
    }
}

#[test]
fn over_mcp_everybody_may_what_the_table_says_and_nothing_else() {
    let scene = Scene::new();
    let table = table();
    let cell = |operation: &str, who: usize| table[operation][who];
    let mut wrong = Vec::new();
    let ends = ["workspace_destroy", "snapshot_remove"];
    let mut covered = BTreeSet::new();
    for (place, who) in CALLERS.iter().enumerate() {
        let caller = &scene.callers[place];
        let own = if *who == "holder" { &scene.spare } else { &scene.target };
        let doomed = if *who == "holder" { &scene.doomed } else { &scene.target };
        let all = cases(own).into_iter().filter(|(_, tool, _)| !ends.contains(tool));
        let last = cases(doomed).into_iter().filter(|(_, tool, _)| ends.contains(tool));
        for (operations, tool, arguments) in all.chain(last) {
            covered.extend(operations.iter().copied());
            let cells = operations.iter().map(|operation| cell(operation, place));
            let expected = cells.into_iter().find(|cell| *cell != "ok").unwrap_or("ok");
            let answer =
                ask(caller, "tools/call", tool, json!({"name": tool, "arguments": arguments}));
            let said = verdict(&answer);
            if said != expected {
                wrong.push(format!(
                    "{tool} {operations:?} by {who}: {said} {answer:?}, not {expected}"
                ));
            }
        }
        // What begins a session.
        let begin = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "matrix", "version": "1"}}});
        let headers = "Accept: application/json, text/event-stream\r\n";
        let answer = caller.call_with("POST", "/mcp", headers, Some(&begin.to_string()));
        let said = if answer.status == 200 { "ok".into() } else { answer.status.to_string() };
        if said != cell("mcp.connect", place) {
            wrong.push(format!("initialize by {who}: {} {}", answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    covered.extend(OPTIONAL);
    assert_eq!(covered, offered(), "every operation of a tool is tried, and no other");

    // An operation without a tool is not there by any name, for whoever may do everything.
    let holder = scene.holder();
    for operation in table.keys().filter(|name| !covered.contains(*name)) {
        for name in [(*operation).to_owned(), operation.replace('.', "_")] {
            let answer = ask(holder, "tools/call", &name, json!({"name": name, "arguments": {}}));
            assert_eq!(answer.1["error"]["code"], -32602, "{name}: {answer:?}");
        }
        let answer = ask(holder, operation, operation, json!({}));
        assert_eq!(answer.1["error"]["code"], -32601, "{operation}: {answer:?}");
    }
    assert_eq!(scene.house.owner("/api/v1/audit/verify")["whole"], true);
    scene.house.server.stop();
}
