//! The least client of MCP over HTTP: one request a connection, read as it comes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{Server, ServerOptions};

/// Longest wait for a part of an answer.
const PART: Duration = Duration::from_secs(30);
/// What every request to `/mcp` says.
pub(crate) const TYPES: &str =
    "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

/// A server that listens on TCP, and its owner's token, which no rate holds back.
pub(crate) fn server() -> (Server, SocketAddr, String) {
    with_config("[rates.tokens]\n")
}

pub(crate) fn with_config(config: &str) -> (Server, SocketAddr, String) {
    let server = Server::with(ServerOptions {
        config: config.to_owned(),
        listen: vec!["127.0.0.1:0".to_owned()],
        ..ServerOptions::default()
    });
    let token = token(&server, &json!({"name": "web", "same_principal": true}));
    let address = address(&server);
    (server, address, token)
}

/// Where a server that listens on TCP is now.
pub(crate) fn address(server: &Server) -> SocketAddr {
    testkit::until("a TCP address", PART, || {
        let last = server.tcp().last().copied()?;
        TcpStream::connect(last).is_ok().then_some(last)
    })
}

/// A new token of the owner's making.
pub(crate) fn token(server: &Server, request: &Value) -> String {
    let made = server.api("POST", "/api/v1/tokens", Some(request));
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    made.json()["token"].as_str().expect("a token").to_owned()
}

/// A client, perhaps in a session.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    /// Headers of every request: a credential, mostly.
    pub(crate) headers: String,
    /// What it calls the server, when that is not the address.
    pub(crate) host: Option<String>,
}

/// An answer as it comes.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By name in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    body: Body,
}

#[derive(Debug)]
struct Body {
    from: BufReader<TcpStream>,
    chunked: bool,
    left: usize,
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|err| panic!("{err}: {}", self.data))
    }
}

impl Web {
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        Self::with_headers(address, format!("Authorization: Bearer {token}\r\n"))
    }

    pub(crate) fn with_headers(address: SocketAddr, headers: String) -> Self {
        Self { address, headers, host: None }
    }

    /// The same with another header.
    pub(crate) fn and(&self, name: &str, value: &str) -> Self {
        Self { headers: format!("{}{name}: {value}\r\n", self.headers), ..self.clone() }
    }

    /// The same in this session.
    pub(crate) fn within(&self, session: &str) -> Self {
        self.and("Mcp-Session-Id", session)
    }

    /// Sends a request whose head is given but for what this client always says.
    pub(crate) fn send(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Answer {
        let length = if body.is_empty() && !head.contains("application/json") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        self.write(method, path, &format!("{head}{length}"), body)
    }

    fn write(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Answer {
        Answer::read(self.open(method, path, head, body))
    }

    fn open(&self, method: &str, path: &str, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PART)).expect("a time limit");
        let host = self.host.clone().unwrap_or_else(|| self.address.to_string());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{}{head}\r\n",
            self.headers
        );
        // A server may refuse and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body));
        stream
    }

    /// The same with the length of the body said, whatever it is.
    pub(crate) fn send_with_length(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &[u8],
    ) -> Answer {
        if body.is_empty() || head.contains("application/json") {
            return self.send(method, path, head, body);
        }
        let head = format!("{head}Content-Length: {}\r\n", body.len());
        self.write(method, path, &head, body)
    }

    /// A body that says its length as it comes.
    pub(crate) fn send_chunked(&self, path: &str, head: &str, body: &[u8]) -> Answer {
        self.write("POST", path, head, body)
    }

    /// The same client, called by another name.
    pub(crate) fn as_host(&self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self.clone() }
    }

    /// The same, of the revision without sessions.
    pub(crate) fn newest(&self) -> Self {
        self.and("MCP-Protocol-Version", "2026-07-28")
    }

    /// Posts a message and waits for nothing.
    pub(crate) fn begin_post(&self, message: &Value) -> TcpStream {
        let body = message.to_string();
        let head = format!("{TYPES}{}Content-Length: {}\r\n", routing(message), body.len());
        self.open("POST", "/mcp", &head, body.as_bytes())
    }

    /// Posts these bytes to `/mcp`.
    pub(crate) fn post_raw(&self, body: &[u8]) -> Answer {
        self.send("POST", "/mcp", TYPES, body)
    }

    pub(crate) fn post(&self, message: &Value) -> Answer {
        let head = format!("{TYPES}{}", routing(message));
        self.send("POST", "/mcp", &head, message.to_string().as_bytes())
    }

    /// Listens to the session, after this event where one is given.
    pub(crate) fn listen(&self, after: Option<&str>) -> Answer {
        let after = after.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        self.send("GET", "/mcp", &format!("Accept: text/event-stream\r\n{after}"), b"")
    }

    pub(crate) fn delete(&self) -> Answer {
        self.send("DELETE", "/mcp", "", b"")
    }

    /// Begins a session of this revision.
    #[track_caller]
    pub(crate) fn begin(&self, revision: &str) -> Self {
        let answer = self.post(&initialize(revision));
        assert_eq!(answer.status, 200, "{:?}", answer.headers);
        let session = answer.headers["mcp-session-id"].clone();
        let told = self.within(&session).and("MCP-Protocol-Version", revision);
        let message = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(told.post(&message).status, 202);
        told
    }

    /// Sends a request and gives its answer, whatever way it comes.
    #[track_caller]
    pub(crate) fn call(&self, id: u64, method: &str, params: &Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.post(&message).last()
    }

    /// The structured result of a tool that succeeds.
    #[track_caller]
    pub(crate) fn tool(&self, id: u64, name: &str, arguments: &Value) -> Value {
        let answer = self.call(id, "tools/call", &json!({"name": name, "arguments": arguments}));
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        answer["result"]["structuredContent"].clone()
    }
}

/// The first request of a session.
pub(crate) fn initialize(revision: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": revision,
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    }})
}

/// A call of a tool.
pub(crate) fn tool_call(id: u64, name: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": name, "arguments": arguments, "_meta": {"progressToken": id}}})
}

/// A request of the revision without sessions.
pub(crate) fn alone(id: u64, method: &str, params: &Value) -> Value {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// Headers that repeat what a message of the newest revision says, for what stands between.
fn routing(message: &Value) -> String {
    let params = &message["params"];
    if !params["_meta"].is_object() || message["method"] == "initialize" {
        return String::new();
    }
    let method = message["method"].as_str().unwrap_or_default();
    let name = params["name"].as_str().or(params["uri"].as_str());
    let name = name.map_or(String::new(), |name| format!("Mcp-Name: {name}\r\n"));
    format!("Mcp-Method: {method}\r\n{name}")
}

impl Answer {
    fn read(stream: TcpStream) -> Self {
        let mut from = BufReader::new(stream);
        let mut line = String::new();
        from.read_line(&mut line).expect("an answer");
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line).expect("a header");
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let chunked = headers.get("transfer-encoding").is_some_and(|kind| kind == "chunked");
        let left = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { status, headers, body: Body { from, chunked, left } }
    }

    /// Whether it is a stream of events.
    pub(crate) fn streams(&self) -> bool {
        self.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The next event, or nothing at the end.
    pub(crate) fn event(&mut self) -> Option<Event> {
        let mut event = Event::default();
        let mut any = false;
        loop {
            let Some(line) = self.body.line() else { return any.then_some(event) };
            if line.is_empty() {
                if any {
                    return Some(event);
                }
            } else if let Some(id) = line.strip_prefix("id:") {
                (event.id, any) = (Some(id.trim().to_owned()), true);
            } else if let Some(data) = line.strip_prefix("data:") {
                event.data.push_str(data.trim_start());
                any = true;
            }
        }
    }

    /// Everything else of it as text.
    pub(crate) fn text(mut self) -> String {
        let mut all = Vec::new();
        while let Some(byte) = self.body.byte() {
            all.push(byte);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    pub(crate) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err}: {text}"))
    }

    /// The last message of it.
    #[track_caller]
    pub(crate) fn last(mut self) -> Value {
        if !self.streams() {
            return self.json();
        }
        let mut last = None;
        while let Some(event) = self.event() {
            if !event.data.is_empty() {
                last = Some(event);
            }
        }
        last.expect("an answer before the end").json()
    }
}

impl Body {
    fn byte(&mut self) -> Option<u8> {
        if self.left == 0 {
            if !self.chunked {
                return None;
            }
            let mut line = String::new();
            while line.trim().is_empty() {
                line.clear();
                if self.from.read_line(&mut line).ok()? == 0 {
                    return None;
                }
            }
            self.left = usize::from_str_radix(line.trim(), 16).ok()?;
            if self.left == 0 {
                return None;
            }
        }
        let mut byte = [0];
        self.from.read_exact(&mut byte).ok()?;
        self.left -= 1;
        Some(byte[0])
    }

    /// A line without its end; nothing at the end of the body.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match self.byte() {
                None if line.is_empty() => return None,
                None | Some(b'\n') => break,
                Some(byte) => line.push(byte),
            }
        }
        Some(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
    }
}
