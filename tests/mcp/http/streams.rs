//! Streams that break, calls that are cancelled.

use std::time::Duration;

use serde_json::json;
use testkit::{Server, until};

use crate::web::{self, Web, tool_call};

const SOON: Duration = Duration::from_secs(20);

/// A workspace, and a client in a session.
fn house(name: &str) -> (Server, Web, Web) {
    let (server, address, token) = web::server();
    let web = Web::new(address, &token);
    let session = web.begin("2025-11-25");
    session.tool(100, "workspace_create", &json!({"name": name}));
    (server, web, session)
}

fn runs(server: &Server, workspace: &str, file: &str) {
    until("the command to run", SOON, || {
        let seen = server.pinfold(&["exec", workspace, "--", "test", "-e", file]);
        (seen.code == 0).then_some(())
    });
}

/// A command whose second process leaves the first one's group and session.
fn family(workspace: &str, seconds: u32) -> serde_json::Value {
    let command = format!("echo go > /tmp/go; setsid sleep {seconds} & sleep {seconds}");
    json!({"workspace": workspace, "command": command})
}

fn ends(server: &Server, workspace: &str, seconds: u32) {
    let sleep = format!("sleep {seconds}");
    until("the end of all its processes", SOON, || {
        let seen = server.pinfold(&["exec", workspace, "--", "pgrep", "-f", &sleep]);
        (seen.code == 1).then_some(())
    });
}

#[test]
fn an_answer_is_read_on_where_the_connection_broke() {
    let (server, _web, session) = house("broken");
    // It waits for a file that appears when the connection is gone.
    let command = "echo begun; until [ -e /tmp/on ]; do sleep 0.1; done; echo done";
    let call = tool_call(1, "exec", &json!({"workspace": "broken", "command": command}));
    let mut stream = session.post(&call);
    assert!(stream.streams());
    let first = stream.event().expect("an event that numbers");
    let first = first.id.expect("its number");
    let progress = stream.event().expect("progress").json();
    assert_eq!(progress["params"]["message"], "begun\n", "{progress}");
    drop(stream);
    server.pinfold(&["exec", "broken", "--", "touch", "/tmp/on"]).ok();
    // Read twice: nothing that was read is lost to who reads again.
    for _ in 0..2 {
        let answer = session.listen(Some(&first)).last();
        assert_eq!(answer["id"], 1, "{answer}");
        assert_eq!(answer["result"]["structuredContent"]["stdout"], "begun\ndone\n", "{answer}");
    }
    // An event of nobody's is an empty stream.
    let mut nothing = session.listen(Some("999-7"));
    assert_eq!((nothing.status, nothing.event()), (200, None));
    server.stop();
}

#[test]
fn a_request_id_in_use_is_refused() {
    let (server, _web, session) = house("twice");
    let call = tool_call(1, "exec", &family("twice", 4331));
    let running = session.post(&call);
    runs(&server, "twice", "/tmp/go");
    let again = session.post(&call);
    assert_eq!(again.status, 400);
    assert_eq!(again.json()["id"], 1);
    drop(running);
    assert_eq!(session.delete().status, 204);
    ends(&server, "twice", 4331);
    server.stop();
}

#[test]
fn a_call_that_is_cancelled_leaves_no_process() {
    let (server, _web, session) = house("cancelled");
    let mut running = session.post(&tool_call(7, "exec", &family("cancelled", 4332)));
    runs(&server, "cancelled", "/tmp/go");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 7, "reason": "enough"}});
    assert_eq!(session.post(&cancel).status, 202);
    while let Some(event) = running.event() {
        assert!(!event.data.contains("\"result\""), "nothing answers it: {event:?}");
    }
    ends(&server, "cancelled", 4332);
    server.stop();
}

#[test]
fn a_call_without_a_session_ends_with_its_connection() {
    let (server, web, _session) = house("alone");
    // Another session owns the workspace and is at work; it leaves.
    server.pinfold(&["create", "free"]).ok();
    let call = json!({"name": "exec", "arguments": family("free", 4333)});
    // Its head comes with the first message, so it is only sent here.
    let request = web.newest().begin_post(&web::alone(1, "tools/call", &call));
    runs(&server, "free", "/tmp/go");
    drop(request);
    ends(&server, "free", 4333);
    // The same when it has begun to answer.
    let mut call = web::alone(
        2,
        "tools/call",
        &json!({"name": "exec", "arguments": {
            "workspace": "free",
            "command": "for i in $(seq 9); do echo $i; sleep 0.3; done; exec sleep 4334",
        }}),
    );
    call["params"]["_meta"]["progressToken"] = 2.into();
    let mut stream = web.newest().post(&call);
    let progress = stream.event().expect("progress").json();
    assert_eq!(progress["method"], "notifications/progress", "{progress}");
    drop(stream);
    ends(&server, "free", 4334);
    until("no command", SOON, || {
        let list = json!({"name": "exec_list", "arguments": {"workspace": "free"}});
        let listed = web.newest().post(&web::alone(3, "tools/call", &list)).last();
        let commands = listed["result"]["structuredContent"]["commands"].clone();
        commands.as_array()?.iter().all(|one| one["running"] == false).then_some(())
    });
    server.stop();
}
