//! The end of sessions, and of the server under them.

use serde_json::{Value, json};

use crate::web::{self, Web, initialize};

const PING: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// The Pinfold session of a client.
fn session_of(web: &Web) -> String {
    let who = web.tool(50, "session_info", &json!({}));
    who["session"].as_str().expect("a session").to_owned()
}

fn error_of(answer: &Value) -> &Value {
    &answer["result"]["_meta"]["io.pinfold/error"]["code"]
}

#[test]
fn a_session_defends_its_workspace_and_leaves_it_when_it_is_deleted() {
    let (server, address, token) = web::server();
    let web = Web::new(address, &token);
    let (first, second) = (web.begin("2025-11-25"), web.begin("2025-11-25"));
    assert_ne!(session_of(&first), session_of(&second), "one for each");
    first.tool(1, "workspace_create", &json!({"name": "mine"}));
    let exec = json!({"name": "exec", "arguments": {"workspace": "mine", "command": "true"}});
    let refused = second.call(1, "tools/call", &exec);
    assert_eq!(error_of(&refused), "conflict", "{refused}");
    // A request without a session is in the default one of its principal, which owns nothing here.
    assert_eq!(first.delete().status, 204);
    assert_eq!(first.post_raw(PING).status, 404);
    assert_eq!(first.delete().status, 404);
    assert_eq!(second.call(2, "tools/call", &exec)["result"]["isError"], false);
    let audit = server.api("GET", "/api/v1/audit?limit=100", None).json();
    let records = audit.as_array().expect("records");
    let made = records.iter().find(|one| one["operation"] == "workspace.create");
    assert_eq!(made.map(|one| &one["surface"]), Some(&json!("mcp")), "{audit}");
    server.stop();
}

#[test]
fn after_a_restart_a_client_begins_again_and_takes_its_workspaces_over() {
    for graceful in [false, true] {
        let (mut server, address, token) = web::server();
        let before = Web::new(address, &token).begin("2025-11-25");
        before.tool(1, "workspace_create", &json!({"name": "stays"}));
        let old = session_of(&before);
        let start = json!({"workspace": "stays", "command": "exec sleep 1000"});
        before.tool(2, "exec_start", &start);
        // A client that listens holds nothing up.
        let mut listening = before.listen(None);
        if graceful {
            let pid = rustix::process::Pid::from_raw(server.pid()).expect("it runs");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
            while listening.event().is_some() {}
            testkit::until("its end", std::time::Duration::from_secs(20), || {
                let state = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).ok()?;
                state.contains(") Z ").then_some(())
            });
        }
        server.kill();
        server.start_again();
        let web = Web { address: web::address(&server), ..Web::new(address, &token) };
        let gone = Web { address: web.address, ..before };
        assert_eq!(gone.post_raw(PING).status, 404, "no session outlives its server");
        assert_eq!(gone.listen(Some("1-0")).status, 404);
        let after = web.begin("2025-11-25");
        let adopted = after.tool(3, "session_adopt", &json!({"session": old}));
        assert_eq!(adopted["workspaces"].as_array().map(Vec::len), Some(1), "{adopted}");
        let listed = after.tool(4, "exec_list", &json!({"workspace": "stays"}));
        let commands = listed["commands"].as_array().expect("a list");
        assert!(commands.iter().any(|one| one["running"] == true), "{listed}");
        let ran = after.tool(5, "exec", &json!({"workspace": "stays", "command": "echo on"}));
        assert_eq!(ran["stdout"], "on\n");
        server.stop();
    }
}

#[test]
fn a_session_that_its_owner_ends_elsewhere_is_gone() {
    let (server, address, token) = web::server();
    let web = Web::new(address, &token);
    let session = web.begin("2025-11-25");
    let id = session_of(&session);
    let ended = server.api("DELETE", &format!("/api/v1/sessions/{id}"), None);
    assert_eq!(ended.status, 204);
    assert_eq!(session.post_raw(PING).status, 404);
    assert_eq!(web.post(&initialize("2025-11-25")).status, 200);
    server.stop();
}

#[test]
fn the_unix_socket_serves_its_owner_without_a_token() {
    let (server, _address, _token) = web::server();
    let body = initialize("2025-11-25").to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}Content-Length: {}\r\n\r\n{body}",
        web::TYPES,
        body.len()
    );
    let answer = server.raw(request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.headers.to_ascii_lowercase().contains("mcp-session-id:"), "{}", answer.headers);
    let page = request.replacen("Host:", "Origin: http://localhost\r\nHost:", 1);
    assert_eq!(server.raw(page.as_bytes()).expect("an answer").status, 403, "no page");
    server.stop();
}
