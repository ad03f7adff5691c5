//! Who is let in, and whose a session is.

use std::time::Duration;

use serde_json::json;
use testkit::until;

use crate::web::{self, Web, initialize, tool_call};

const SOON: Duration = Duration::from_secs(20);
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[test]
fn without_a_bearer_that_stands_nothing_is_answered_and_the_way_is_shown() {
    let (server, address, token) = web::server();
    let session = Web::new(address, &token).begin("2025-11-25");
    let id = session.headers.split("Mcp-Session-Id: ").nth(1).and_then(|rest| rest.lines().next());
    let id = id.expect("its id").to_owned();
    let forged = format!("{}x", &token[..token.len() - 1]);
    for headers in [
        String::new(),
        "Authorization: Bearer nonsense\r\n".to_owned(),
        format!("Authorization: Bearer {forged}\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Cookie: pinfold={token}; __Host-pinfold={token}; session={token}\r\n"),
    ] {
        let nobody = Web::with_headers(address, headers);
        for answer in [
            nobody.post(&initialize("2025-11-25")),
            // An id of a session opens nothing.
            nobody.within(&id).post_raw(PING.as_bytes()),
            nobody.within(&id).listen(None),
            nobody.within(&id).delete(),
        ] {
            assert_eq!(answer.status, 401, "{}", nobody.headers);
            let challenge = &answer.headers["www-authenticate"];
            let wanted = format!(
                "Bearer realm=\"pinfold\", resource_metadata=\"http://{address}/.well-known/\
                 oauth-protected-resource/mcp\""
            );
            assert_eq!(*challenge, wanted);
        }
    }
    // Elsewhere there is nothing to discover.
    let plain = Web::with_headers(address, String::new()).send("GET", "/api/v1/whoami", "", b"");
    assert_eq!(plain.headers["www-authenticate"], "Bearer realm=\"pinfold\"");
    assert_eq!(session.call(2, "ping", &json!({}))["result"], json!({}), "it is as it was");
    server.stop();
}

#[test]
fn a_session_is_nobodys_but_its_makers() {
    let (server, address, token) = web::server();
    let session = Web::new(address, &token).begin("2025-11-25");
    let within = session.headers.lines().find(|line| line.starts_with("Mcp-Session-Id"));
    let within = format!("{}\r\n", within.expect("its id"));
    let stranger = web::token(&server, &json!({"name": "stranger"}));
    let twin = web::token(&server, &json!({"name": "twin", "same_principal": true}));
    let unknown = Web::new(address, &token).within(&"0".repeat(64)).post_raw(PING.as_bytes());
    let (status, unknown) = (unknown.status, unknown.text());
    for other in [&stranger, &twin] {
        let mut other = Web::new(address, other);
        other.headers.push_str(&within);
        for answer in [other.post_raw(PING.as_bytes()), other.listen(None), other.delete()] {
            assert_eq!((answer.status, answer.text()), (status, unknown.clone()));
        }
    }
    assert_eq!(status, 404);
    assert_eq!(session.call(2, "ping", &json!({}))["result"], json!({}), "nobody ended it");
    server.stop();
}

#[test]
fn pages_of_configured_origins_may_use_it_and_no_others() {
    let config = "[server]\norigins = [\"https://app.example\"]\n[rates.tokens]\n";
    let (server, address, token) = web::with_config(config);
    let web = Web::new(address, &token);
    let page = web.and("Origin", "https://app.example").and("Sec-Fetch-Site", "cross-site");
    let answer = page.post(&initialize("2025-11-25"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    assert!(answer.headers["access-control-expose-headers"].contains("mcp-session-id"));
    let ask = "Access-Control-Request-Method: POST\r\n";
    let preflight = page.send("OPTIONS", "/mcp", ask, b"");
    assert_eq!(preflight.status, 204);
    for name in ["authorization", "mcp-session-id", "mcp-protocol-version", "mcp-method"] {
        assert!(preflight.headers["access-control-allow-headers"].contains(name), "{name}");
    }
    for foreign in ["https://evil.example", "null", "https://app.example:444"] {
        let page = web.and("Origin", foreign);
        assert_eq!(page.post(&initialize("2025-11-25")).status, 403, "{foreign}");
        // The specification asks for the check on every request.
        assert_eq!(page.listen(None).status, 403, "{foreign}");
        assert_eq!(page.delete().status, 403, "{foreign}");
    }
    let renamed = Web::with_headers(address, web.headers.clone());
    let rebound = renamed.as_host("evil.example").post(&initialize("2025-11-25"));
    assert_eq!(rebound.status, 403);
    server.stop();
}

#[test]
fn a_session_ends_with_its_token_and_what_runs_in_it_too() {
    let (server, address, _owner) = web::server();
    let token = web::token(&server, &json!({"name": "short"}));
    let session = Web::new(address, &token).begin("2025-11-25");
    session.tool(1, "workspace_create", &json!({"name": "held"}));
    let command = "echo go > /tmp/go; exec sleep 4323";
    let call = tool_call(2, "exec", &json!({"workspace": "held", "command": command}));
    let mut running = session.post(&call);
    let mut listening = session.listen(None);
    assert!(running.streams() && listening.streams());
    until("the command to run", SOON, || {
        let seen = server.pinfold(&["exec", "held", "--", "test", "-e", "/tmp/go"]);
        (seen.code == 0).then_some(())
    });
    server.pinfold(&["token", "revoke", "short"]).ok();
    while running.event().is_some() {}
    while listening.event().is_some() {}
    until("the end of its command", SOON, || {
        let seen = server.pinfold(&["exec", "held", "--", "pgrep", "-f", "sleep 4323"]);
        (seen.code == 1).then_some(())
    });
    assert_eq!(session.post_raw(PING.as_bytes()).status, 401);
    until("the end of the session", SOON, || {
        let sessions = server.api("GET", "/api/v1/sessions", None).json();
        let all = sessions["items"].as_array().cloned().unwrap_or_default();
        all.iter().all(|one| one["state"] == "ended").then_some(())
    });
    server.stop();
}

#[test]
fn sessions_are_counted_and_silent_ones_end() {
    let config = "[streams]\nmax_per_principal = 2\nidle_ms = 5000\n[rates.tokens]\n";
    let (server, address, token) = web::with_config(config);
    let web = Web::new(address, &token);
    let first = web.begin("2025-11-25");
    let _second = web.begin("2025-11-25");
    let third = web.post(&initialize("2025-11-25"));
    assert_eq!(third.status, 429);
    assert_eq!(third.headers["retry-after"], "1");
    assert!(third.text().contains("streams.max_per_principal"));
    // Somebody else has room.
    let other = web::token(&server, &json!({"name": "other"}));
    let _other = Web::new(address, &other).begin("2025-11-25");
    until("the end of silent sessions", SOON, || {
        (web.post(&initialize("2025-11-25")).status == 200).then_some(())
    });
    assert_eq!(first.post_raw(PING.as_bytes()).status, 404);
    server.stop();
}

#[test]
fn calls_over_the_rate_are_told_when_to_come_back() {
    let config = "[rates.tokens]\ndefault = { per_second = 1, burst = 2 }\n";
    let (server, address, token) = web::with_config(config);
    let web = Web::new(address, &token).newest();
    let list = web::alone(1, "tools/list", &json!({}));
    let answers: Vec<_> = (0..12).map(|_| web.post(&list)).collect();
    let limited = answers.iter().find(|answer| answer.status == 429).expect("too many");
    let seconds: u64 = limited.headers["retry-after"].parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    // A tool says the same in its result.
    let call = json!({"name": "workspace_list", "arguments": {}});
    let refused = web.post(&web::alone(2, "tools/call", &call)).last();
    let about = &refused["result"]["_meta"]["io.pinfold/error"];
    assert_eq!(about["code"], "rate_limited", "{refused}");
    assert!(about["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
    server.stop();
}

#[test]
fn what_is_in_a_call_is_in_no_log() {
    const CANARY: &str = "canary-7d1f0c55";
    let config = "[server]\nlog = \"trace,rmcp=trace,rmcp::service=trace,[serve_inner]=trace\"\n\
                  [rates.tokens]\n";
    let (server, address, token) = web::with_config(config);
    let web = Web::new(address, &token);
    let session = web.begin("2025-11-25");
    session.tool(1, "workspace_create", &json!({"name": "quiet"}));
    let command = format!("echo {CANARY}-out; : {CANARY}-argument");
    let env = json!({"SECRET": format!("{CANARY}-env")});
    let exec = json!({"workspace": "quiet", "command": command, "env": env});
    session.tool(2, "exec", &exec);
    let write = json!({"workspace": "quiet", "path": "/data/s", "content": CANARY});
    session.tool(3, "file_write", &write);
    let alone = json!({"name": "exec", "arguments": exec});
    web.newest().post(&web::alone(4, "tools/call", &alone)).last();
    session.post_raw(format!("{{\"jsonrpc\":\"2.0\",\"id\":5,\"x\":\"{CANARY}\"}}").as_bytes());
    let log = server.printed();
    assert!(log.contains("DEBUG") && log.contains("request id="), "it is a log that tells a lot");
    assert!(
        !log.contains(CANARY),
        "{}",
        log.lines().find(|line| line.contains(CANARY)).unwrap_or_default()
    );
    assert!(!log.contains(&token[10..]), "nor is the token");
    server.stop();
}
