//! Raw lines to `pinfold mcp`.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::{Value, json};
use testkit::Server;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A client that writes what it likes.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Client {
    fn start(server: &Server) -> Self {
        let mut child = server
            .command()
            .arg("mcp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("pinfold mcp");
        let stdout = child.stdout.take().expect("it was piped");
        let (sender, lines) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { stdin: child.stdin.take(), child, lines }
    }

    fn raw(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().expect("it is open");
        stdin.write_all(line).and_then(|()| stdin.write_all(b"\n")).expect("it reads");
    }

    fn send(&mut self, message: &Value) {
        self.raw(message.to_string().as_bytes());
    }

    #[track_caller]
    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(ANSWER).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line}"))
    }

    #[track_caller]
    fn call(&mut self, id: u64, method: &str, params: &Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let answer = self.next();
            if answer["id"] == id {
                return answer;
            }
        }
    }

    /// Begins the session, and gives the revision that was agreed on.
    #[track_caller]
    fn begin(&mut self, revision: &str) -> String {
        let params = json!({
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": {"name": "raw", "version": "1"},
        });
        let answer = self.call(0, "initialize", &params);
        let agreed = answer["result"]["protocolVersion"].as_str();
        let agreed = agreed.unwrap_or_else(|| panic!("{answer}")).to_owned();
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        agreed
    }

    #[track_caller]
    fn tool(&mut self, id: u64, name: &str, arguments: &Value) -> Value {
        let answer = self.call(id, "tools/call", &json!({"name": name, "arguments": arguments}));
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        answer["result"]["structuredContent"].clone()
    }

    /// Closes standard input and waits for the end.
    fn end(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("our child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn every_revision_is_agreed_on_and_an_unknown_one_is_answered_with_ours() {
    let server = Server::start();
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
        ("nonsense", "2025-11-25"),
    ] {
        let mut client = Client::start(&server);
        assert_eq!(client.begin(asked), agreed, "{asked}");
        client.end();
    }
    server.stop();
}

#[test]
fn lines_that_are_no_messages_get_the_exact_error_and_change_nothing() {
    let server = Server::start();
    let mut client = Client::start(&server);
    // Before the session begins.
    client.raw(b"this is not JSON");
    assert_eq!(client.next()["error"]["code"], -32700);
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let early = client.call(7, "tools/list", &json!({}));
    assert_eq!(early["error"]["code"], -32602, "{early}");
    client.begin("2025-11-25");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (line, code) in [
        (&b"{"[..], -32700),
        (b"\xff\xfe\x00", -32700),
        (deep.as_bytes(), -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (br#"{"id":1,"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#, -32601),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#, -32602),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, -32602),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nope"}}"#, -32602),
        (br#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":""}}"#, -32002),
    ] {
        client.raw(line);
        let answer = client.next();
        let shown = String::from_utf8_lossy(&line[..line.len().min(80)]);
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer}");
    }
    // A message over the limit is dropped whole, and the session goes on.
    let huge =
        json!({"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {"x": "y".repeat(9 << 20)}});
    client.send(&huge);
    assert_eq!(client.next()["error"]["code"], -32600);
    assert_eq!(client.call(3, "ping", &json!({}))["result"], json!({}));
    let listed = client.tool(4, "workspace_list", &json!({}));
    assert_eq!(listed["workspaces"], json!([]));
    client.end();
    server.stop();
}

#[test]
fn the_server_may_restart_in_the_middle_of_a_session() {
    let mut server = Server::start();
    let mut client = Client::start(&server);
    client.begin("2025-11-25");
    client.tool(1, "workspace_create", &json!({"name": "stays"}));
    let started = json!({"workspace": "stays", "command": "echo go > /tmp/runs; exec sleep 1000"});
    client.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "exec", "arguments": started}}));
    testkit::until("the command to run", ANSWER, || {
        let seen = server.pinfold(&["exec", "stays", "--", "test", "-e", "/tmp/runs"]);
        (seen.code == 0).then_some(())
    });
    server.kill();
    // The call in flight gets its answer without anybody asking.
    let lost = client.next();
    assert_eq!((&lost["id"], &lost["error"]["code"]), (&json!(2), &json!(-32000)), "{lost}");
    assert!(lost["error"]["data"]["hint"].as_str().is_some_and(|hint| hint.contains("exec_list")));
    server.start_again();
    // The same session goes on, and the command with it.
    let listed = client.tool(3, "exec_list", &json!({"workspace": "stays"}));
    let running = listed["commands"].as_array().expect("a list");
    assert!(running.iter().any(|one| one["running"] == true), "{listed}");
    let sessions = server.api("GET", "/api/v1/sessions", None).json();
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(1), "{sessions}");
    client.tool(4, "workspace_destroy", &json!({"workspace": "stays"}));
    client.end();
    server.stop();
}

#[test]
fn a_session_defends_its_workspace_and_leaves_it_at_its_end() {
    let server = Server::start();
    let (mut first, mut second) = (Client::start(&server), Client::start(&server));
    first.begin("2025-11-25");
    second.begin("2025-11-25");
    first.tool(1, "workspace_create", &json!({"name": "mine"}));
    let arguments = json!({"workspace": "mine", "command": "true"});
    let call = json!({"name": "exec", "arguments": arguments});
    let refused = second.call(1, "tools/call", &call);
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert_eq!(refused["result"]["_meta"]["io.pinfold/error"]["code"], "conflict", "{refused}");
    first.end();
    assert_eq!(second.tool(2, "exec", &arguments)["exit_code"], 0);
    second.end();
    server.stop();
}
