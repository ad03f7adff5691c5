//! Requests that are malformed, each with its exact status.

use serde_json::json;

use crate::web::{self, TYPES, Web, initialize};

#[test]
fn requests_that_are_no_messages_get_the_exact_status_and_change_nothing() {
    let (server, address, token) = web::server();
    let web = Web::new(address, &token);
    let session = web.begin("2025-11-25");
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}1{}}}"#,
        r#"{"a":"#.repeat(5000),
        "}".repeat(5000)
    );
    let batch = format!("[{}]", String::from_utf8_lossy(ping));
    for (body, status, code) in [
        (&b"{"[..], 400, -32700),
        (b"", 400, -32700),
        (b"\xff\xfe\x00", 400, -32700),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"p\xff\"}", 400, -32700),
        (deep.as_bytes(), 400, -32700),
        (nested.as_bytes(), 400, -32700),
        (batch.as_bytes(), 400, -32600),
        (b"[]", 400, -32600),
        (b"7", 400, -32600),
        (b"null", 400, -32600),
        (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, 400, -32600),
        (br#"{"id":1,"method":"ping"}"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":7}"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#, 200, -32601),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#, 200, -32602),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"no"}}"#, 200, -32602),
    ] {
        let answer = session.post_raw(body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(answer.status, status, "{shown}");
        let said = answer.last();
        assert_eq!(said["error"]["code"], code, "{shown}: {said}");
    }
    // A message over the limit is refused by what is said of it, and by what comes.
    let padding = "y".repeat(9 << 20);
    let huge = json!({"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {"x": padding}});
    assert_eq!(session.post(&huge).status, 413);
    let chunked = format!("{TYPES}Transfer-Encoding: chunked\r\n");
    let chunk = format!("{:x}\r\n{huge}\r\n0\r\n\r\n", huge.to_string().len());
    let plain = session.clone();
    assert_eq!(plain.send_chunked("/mcp", &chunked, chunk.as_bytes()).status, 413);

    let json_only = "Content-Type: application/json\r\nAccept: application/json\r\n";
    let zero =
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream;q=0\r\n";
    let text = "Content-Type: text/plain\r\nAccept: application/json, text/event-stream\r\n";
    let none = "Accept: application/json, text/event-stream\r\n";
    for (method, head, status) in [
        ("POST", json_only, 406),
        ("POST", zero, 406),
        ("POST", text, 415),
        ("POST", none, 415),
        ("GET", "Accept: application/json\r\n", 406),
        ("GET", "", 406),
        ("PUT", TYPES, 405),
        ("PATCH", TYPES, 405),
    ] {
        let body: &[u8] = if method == "GET" { b"" } else { ping };
        let answer = session.send_with_length(method, "/mcp", head, body);
        assert_eq!(answer.status, status, "{method} {head}");
        if status == 405 {
            assert_eq!(answer.headers["allow"], "GET, POST, DELETE");
        }
    }
    // Revisions: one that is not served, and one that the message and the header disagree on.
    assert_eq!(
        web.and("MCP-Protocol-Version", "1999-01-01").post(&initialize("2025-11-25")).status,
        400
    );
    assert_eq!(
        web.and("MCP-Protocol-Version", "2025-06-18").post(&initialize("2025-11-25")).status,
        400
    );
    let wrong = session.within("x").headers.replace("MCP-Protocol-Version: 2025-11-25\r\n", "");
    let wrong = Web::with_headers(address, wrong).and("MCP-Protocol-Version", "nonsense");
    assert_eq!(wrong.post_raw(ping).status, 400);
    // No session, and ids that are none.
    assert_eq!(web.post_raw(ping).status, 400);
    assert_eq!(web.listen(None).status, 400);
    assert_eq!(web.delete().status, 400);
    for id in ["nope", "00", "", "../../etc", &"a".repeat(4000)] {
        let answer = web.within(id).post_raw(ping);
        assert_eq!(answer.status, 404, "{id:?}");
        assert_eq!(answer.json()["error"]["code"], -32001);
    }
    // The session is none the worse for all of it.
    assert_eq!(session.call(9, "ping", &json!({}))["result"], json!({}));
    assert_eq!(session.tool(10, "workspace_list", &json!({}))["workspaces"], json!([]));
    assert!(!server.printed().contains("panicked"), "{}", server.printed());
    server.stop();
}

#[test]
fn every_revision_with_sessions_is_agreed_on_and_the_newest_stands_alone() {
    let (server, address, token) = web::server();
    let web = Web::new(address, &token);
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let answer = web.post(&initialize(asked));
        assert!(answer.headers.contains_key("mcp-session-id"), "{asked}");
        assert_eq!(answer.last()["result"]["protocolVersion"], agreed, "{asked}");
    }
    let newest = web.newest();
    let answer = newest.post(&web::alone(1, "tools/list", &json!({})));
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("mcp-session-id") && !answer.streams());
    let tools = answer.json();
    assert!(tools["result"]["tools"].as_array().is_some_and(|all| all.len() > 20), "{tools}");
    server.stop();
}
