//! Spans of the real server, as a collector gets them: OTLP over HTTP, read from the bytes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use testkit::{Server, ServerOptions, until};

use crate::{
    aside::refused_start,
    metrics::{numbers, place},
    wire::fields,
};

/// One request to the collector: its head, in lower case, and its body.
type Taken = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector that takes everything, once it has answered what it was told to.
struct Collector {
    address: SocketAddr,
    taken: Taken,
}

impl Collector {
    fn start() -> Self {
        Self::answering([])
    }

    /// Answers these first, a request each, and 200 from then on.
    fn answering<const N: usize>(first: [&'static str; N]) -> Self {
        let mut first = first.into_iter();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let taken = Taken::default();
        let keep = Arc::clone(&taken);
        // Ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (keep, status) = (Arc::clone(&keep), first.next().unwrap_or("200 OK"));
                std::thread::spawn(move || answer(stream, status, &keep));
            }
        });
        Self { address, taken }
    }

    /// Every span that has come so far.
    fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().expect("no panic there");
        taken.iter().flat_map(|(_, body)| spans(body)).collect()
    }
}

fn answer(stream: TcpStream, status: &str, keep: &Taken) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a whole body");
    keep.lock().expect("no panic there").push((head, body));
    let mut stream = stream;
    let reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\nlocation: /elsewhere\r\n\
         content-length: 0\r\n\r\n"
    );
    let _gone = stream.write_all(reply.as_bytes());
}

/// A span by the numbers of `opentelemetry/proto/trace/v1/trace.proto`.
#[derive(Clone, Debug)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    kind: u64,
    time: (u64, u64),
    attributes: BTreeMap<String, String>,
}

impl Span {
    fn of(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// `KeyValue`: key 1, value 2 (`AnyValue`: string 1, bool 2, int 3).
fn attribute(bytes: &[u8]) -> (String, String) {
    let all = fields(bytes);
    let key = all.iter().find(|field| field.0 == 1).expect("a key");
    let value = all.iter().find(|field| field.0 == 2).expect("a value");
    let value = fields(value.2).first().map(|(kind, number, bytes)| match kind {
        1 => text(bytes),
        _ => number.to_string(),
    });
    (text(key.2), value.unwrap_or_default())
}

fn spans(body: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for (_, _, resource_spans) in fields(body) {
        let parts = fields(resource_spans);
        let resource = parts.iter().find(|part| part.0 == 1).expect("a resource");
        let about: BTreeMap<_, _> = fields(resource.2).iter().map(|of| attribute(of.2)).collect();
        assert_eq!(about["service.name"], "pinfold");
        assert!(!about["service.version"].is_empty() && !about["service.instance.id"].is_empty());
        for scope_spans in parts.iter().filter(|part| part.0 == 2) {
            for span in fields(scope_spans.2).iter().filter(|part| part.0 == 2) {
                let all = fields(span.2);
                let bytes = |number| {
                    all.iter().find(|field| field.0 == number).map_or(vec![], |of| of.2.to_vec())
                };
                let number =
                    |number| all.iter().find(|field| field.0 == number).map_or(0, |field| field.1);
                found.push(Span {
                    trace: bytes(1),
                    id: bytes(2),
                    parent: bytes(4),
                    name: text(&bytes(5)),
                    kind: number(6),
                    time: (number(7), number(8)),
                    attributes: all
                        .iter()
                        .filter(|field| field.0 == 9)
                        .map(|field| attribute(field.2))
                        .collect(),
                });
            }
        }
    }
    found
}

fn config(address: SocketAddr) -> String {
    format!(
        "[server]\nlog = \"debug\"\n[telemetry]\nendpoint = \"http://{address}\"\n\
         allow_private = true\nplain_http = true\n"
    )
}

fn server(address: SocketAddr) -> Server {
    Server::with(ServerOptions {
        config: config(address),
        listen: vec!["127.0.0.1:0".into()],
        metrics: Some("127.0.0.1:0".into()),
        ..ServerOptions::default()
    })
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// One request over TCP, and its reply.
fn over_tcp(server: &Server, what: &str, lines: &[String], body: &str) -> String {
    let address =
        until("the TCP address", Duration::from_secs(30), || server.tcp().first().copied());
    let mut stream = TcpStream::connect(address).expect("the listener");
    let lines = lines.join("\r\n");
    let length = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{lines}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply
}

#[test]
fn a_collector_gets_spans_of_operations_and_nothing_secret() {
    let collector = Collector::start();
    let server = server(collector.address);
    let made = server.pinfold(&["token", "create", "traced-by-name", "--json"]).json();
    let token = made["token"].as_str().expect("a token").to_owned();
    server.pinfold(&["create", "named-by-a-caller", "--env", "SECRET=value-of-a-secret"]).ok();
    let command = ["exec", "named-by-a-caller", "--", "echo", "words-of-a-command"];
    server.pinfold(&command).ok();
    assert_ne!(server.pinfold(&["info", "nobody-has-this-name"]).code, 0);
    let context = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let bearer = format!("Authorization: Bearer {token}");
    let list = "GET /api/v1/workspaces";
    let known = over_tcp(&server, list, &[bearer, context.clone()], "");
    assert!(known.starts_with("HTTP/1.1 200"), "{known}");
    let stranger = over_tcp(&server, list, &[context.replace(TRACE, &"f".repeat(32))], "");
    assert!(stranger.starts_with("HTTP/1.1 401"), "{stranger}");

    let wait = Duration::from_secs(30);
    let find = |what: &str, matches: &dyn Fn(&Span) -> bool| {
        until(what, wait, || collector.spans().into_iter().find(matches))
    };
    let call = find("the exec's operation", &|span| {
        span.name == "exec.run" && span.kind == 1 && span.of("outcome") == "ok"
    });
    let request = find("its request", &|span| span.id == call.parent);
    assert_eq!((request.name.as_str(), request.kind), ("exec.run", 2));
    assert_eq!(request.trace, call.trace);
    assert_eq!((request.trace.len(), request.id.len(), request.parent.len()), (16, 8, 0));
    assert!(request.time.0 > 0 && request.time.1 >= request.time.0);
    for span in [&call, &request] {
        assert_eq!(span.of("principal.kind"), "owner", "{span:?}");
        assert!(span.of("request.id").starts_with("req_"), "{span:?}");
        assert!(!span.of("principal.id").is_empty(), "{span:?}");
    }
    let absent =
        find("the refused call", &|span| span.kind == 2 && span.of("error.code") == "not_found");
    assert_eq!((absent.of("outcome"), absent.of("http.response.status_code")), ("refused", "404"));
    // A caller that stands is a part of its own trace, with the id that its reply named.
    let of_caller = find("the traced call", &|span| hex(&span.trace) == TRACE && span.kind == 2);
    assert_eq!(hex(&of_caller.parent), PARENT);
    assert_eq!(of_caller.of("principal.kind"), "token");
    assert!(known.contains(of_caller.of("request.id")), "{known}");
    // A stranger is part of nothing that it says.
    let denied = find("the stranger's call", &|span| span.of("error.code") == "unauthenticated");
    assert_ne!(hex(&denied.trace), "f".repeat(32));
    assert!(denied.parent.is_empty() && denied.of("principal.id").is_empty(), "{denied:?}");

    let requests = collector.taken.lock().expect("no panic there").clone();
    for (head, body) in &requests {
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        let body = String::from_utf8_lossy(body);
        for secret in [
            token.as_str(),
            "pf_",
            "words-of-a-command",
            "value-of-a-secret",
            "named-by-a-caller",
            "nobody-has-this-name",
            "traced-by-name",
            "/api/v1",
        ] {
            assert!(!body.contains(secret), "{secret} is in what was sent");
        }
    }
    assert!(!server.printed().contains("principal.kind"), "the log has the spans");
    server.stop();
}

#[test]
fn an_operation_in_another_task_is_a_part_of_its_request() {
    let collector = Collector::start();
    let server = server(collector.address);
    let made = server.pinfold(&["token", "create", "traced", "--json"]).json();
    let bearer = format!("Authorization: Bearer {}", made["token"].as_str().expect("a token"));
    let of = |number: u8| (format!("{number:032x}"), format!("{number:016x}"));
    let context = |number: u8| {
        let (trace, parent) = of(number);
        format!("traceparent: 00-{trace}-{parent}-01")
    };
    // What is kept for a retry runs apart from its request.
    let key = "Idempotency-Key: one".to_owned();
    let lines = [bearer.clone(), context(1), key];
    let kept = over_tcp(&server, "POST /api/v1/sessions", &lines, r#"{"client":"c"}"#);
    assert!(kept.starts_with("HTTP/1.1 201"), "{kept}");
    // So does what belongs to a session of MCP.
    let accept = "Accept: application/json, text/event-stream".to_owned();
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":
        "2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
    let said = over_tcp(&server, "POST /mcp", &[bearer.clone(), accept.clone()], hello);
    let session = said.lines().find(|line| line.to_ascii_lowercase().starts_with("mcp-session-id"));
    let session = session.unwrap_or_else(|| panic!("{said}")).to_owned();
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    over_tcp(&server, "POST /mcp", &[bearer.clone(), accept.clone(), session.clone()], ready);
    let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":
        {"name":"workspace_list","arguments":{}}}"#;
    let said = over_tcp(&server, "POST /mcp", &[bearer, accept, session, context(2)], call);
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    for (number, name) in [(1, "session.create"), (2, "workspace.list")] {
        let (trace, parent) = of(number);
        let find = |kind: u64| {
            until("both spans", Duration::from_secs(30), || {
                let all = collector.spans().into_iter();
                all.filter(|span| hex(&span.trace) == trace).find(|span| span.kind == kind)
            })
        };
        let (request, operation) = (find(2), find(1));
        assert_eq!(hex(&request.parent), parent);
        assert_eq!((operation.name.as_str(), &operation.parent), (name, &request.id));
        assert_eq!(operation.of("outcome"), "ok", "{operation:?}");
    }
    server.stop();
}

#[test]
fn the_last_spans_come_before_the_end() {
    let collector = Collector::start();
    let server = server(collector.address);
    server.pinfold(&["whoami"]).ok();
    // The list that `stop` asks for is the last call.
    server.stop();
    let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
    assert!(names.iter().any(|name| name == "workspace.list"), "{names:?}");
}

#[test]
fn what_is_not_taken_is_sent_again_where_that_can_help() {
    // Taken at the second try; refused for good; told to go elsewhere, which it does not.
    let first = ["503 Service Unavailable", "200 OK", "400 Bad Request", "307 Temporary Redirect"];
    let collector = Collector::answering(first);
    let folder = tempfile::tempdir().expect("a folder");
    let credential = folder.path().join("authorization");
    std::fs::write(&credential, "Bearer value-for-the-collector\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&credential, mode).expect("private");
    let file = format!("authorization_file = {:?}\n", credential.to_str().expect("text"));
    let server = Server::with(ServerOptions {
        config: config(collector.address) + &file,
        metrics: Some("127.0.0.1:0".into()),
        ..ServerOptions::default()
    });
    let requests = |least: usize| {
        until("the collector's requests", Duration::from_mins(1), || {
            let taken = collector.taken.lock().expect("no panic there");
            (taken.len() >= least).then(|| taken.clone())
        })
    };
    server.pinfold(&["whoami"]).ok();
    let taken = requests(2);
    assert_eq!(taken[0].1, taken[1].1, "the same spans again");
    // Each comes alone: a request of what happens next is told only when this one is done.
    for times in 3..=5 {
        until("the next one", Duration::from_mins(1), || {
            server.pinfold(&["whoami"]).ok();
            (collector.taken.lock().expect("no panic there").len() >= times).then_some(())
        });
    }
    let taken = requests(5);
    for (head, _) in &taken {
        assert!(head.starts_with("post /v1/traces "), "{head}");
        assert!(head.contains("authorization: bearer value-for-the-collector"), "{head}");
    }
    let numbers = ["exported", "dropped"].map(|what| number(&server, what));
    assert!(numbers[0] > 0.0 && numbers[1] > 0.0, "{numbers:?}");
    assert!(!server.printed().contains("value-for-the-collector"));
    server.stop();
}

/// How many spans became what.
fn number(server: &Server, what: &str) -> f64 {
    let text = numbers(&place(server));
    let name = format!("pinfold_telemetry_spans_{what}_total ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect("the number");
    value.parse().expect("a number")
}

#[test]
fn a_collector_that_is_dead_or_hangs_costs_callers_nothing() {
    // Taken and closed: nobody listens there. And one who accepts, and never says anything.
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    for address in [dead, silent.local_addr().expect("an address")] {
        let server = server(address);
        let begun = Instant::now();
        // More than the queue holds: two spans each.
        for _ in 0..2500 {
            assert_eq!(server.api("GET", "/api/v1/workspaces", None).status, 200);
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
        until("dropped spans in the metrics", Duration::from_mins(1), || {
            (number(&server, "dropped") > 0.0).then_some(())
        });
        let begun = Instant::now();
        server.stop();
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
}

#[test]
fn what_cannot_be_a_collector_keeps_the_server_from_starting() {
    for (config, text) in [
        ("endpoint = \"http://127.0.0.1:4318\"", "plain_http"),
        ("endpoint = \"collector:4318\"", "telemetry.endpoint"),
        ("endpoint = \"https://user:pass@collector.example.com\"", "telemetry.endpoint"),
        ("endpoint = \"https://collector.example.com/?x=1\"", "query"),
        ("endpoint = \"https://collector.example.com/v1/traces\"", "is added"),
        ("endpoint = \"https://127.0.0.1:4318\"", "special"),
        (
            "endpoint = \"https://collector.example.com\"\nca_file = \"/nonexistent.pem\"",
            "nonexistent",
        ),
        (
            "endpoint = \"https://collector.example.com\"\nauthorization_file = \"/dev/null\"",
            "open to others",
        ),
    ] {
        let said = refused_start(&format!("[telemetry]\n{config}\n"));
        assert!(said.contains(text), "{config}: {said}");
    }
}
