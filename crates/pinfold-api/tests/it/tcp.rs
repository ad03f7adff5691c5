//! TCP connections themselves: who gets in, how many, and what is said without a credential.

use pinfold_auth::OPERATIONS;
use pinfold_types::ErrorCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Answer, Served};

/// What every answer carries, of whatever status, on whatever socket.
#[track_caller]
fn is_framed(answer: &Answer) {
    for header in [
        "content-security-policy: default-src 'none'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "permissions-policy: ",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-store",
        "x-request-id: req_",
    ] {
        assert!(answer.head.contains(header), "{header}: {}", answer.head);
    }
    assert!(!answer.head.contains("unsafe-inline"), "{}", answer.head);
    // No encryption, so nothing to insist on.
    assert!(!answer.head.contains("strict-transport-security"), "{}", answer.head);
}

#[tokio::test]
async fn without_a_credential_every_operation_is_refused() {
    let served = Served::start(8).await;
    for operation in OPERATIONS {
        let path = operation
            .path
            .replace("{ref}", "fix")
            .replace("{exec}", "exec_01m80svcy3edz8scegh1jpj4dp")
            .replace("{port}", "80");
        let request = format!(
            "{} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            operation.method.as_str()
        );
        let answer = served.over_tcp(&request).await;
        assert_eq!(answer.status, 401, "{}", operation.name);
        assert_eq!(answer.problem().code, ErrorCode::Unauthenticated, "{}", operation.name);
        assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        is_framed(&answer);
    }
}

#[tokio::test]
async fn every_answer_is_framed_on_every_socket() {
    let served = Served::start(8).await;
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: localhost", 200),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example", 403),
        ("GET /healthz HTTP/1.1\r\nX: no-host", 400),
        ("GET /api/v1/server HTTP/1.1\r\nHost: localhost", 401),
    ] {
        let answer = served.over_tcp(&format!("{request}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{request}");
        is_framed(&answer);
    }
    for (path, status) in
        [("/api/v1/server", 200), ("/nowhere", 404), ("/api/v1/workspaces/no", 404)]
    {
        let answer = served.call("GET", path).await;
        assert_eq!(answer.status, status, "{path}");
        is_framed(&answer);
    }
}

#[tokio::test]
async fn health_tells_its_status_and_nothing_else() {
    let mut served = Served::start(8).await;
    let ask =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for (path, body) in [("/healthz", r#"{"status":"ok"}"#), ("/readyz", r#"{"status":"ready"}"#)] {
        for answer in [served.over_tcp(&ask(path)).await, served.call("GET", path).await] {
            assert_eq!((answer.status, answer.text().as_str()), (200, body));
        }
        assert_eq!(served.call("POST", path).await.status, 405);
    }
    // A connection from before the end still hears of it.
    let mut open = TcpStream::connect(served.tcp).await.expect("the server listens");
    open.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n").await.expect("half a head");
    let mut known = TcpStream::connect(served.tcp).await.expect("the server listens");
    known.write_all(ask("/healthz").as_bytes()).await.expect("a request");
    let _both_are_served = known.read_to_end(&mut Vec::new()).await.expect("an answer");
    let _streams = served.stop().await;
    assert!(TcpStream::connect(served.tcp).await.is_err(), "it still listens");
}

#[tokio::test]
async fn strangers_cannot_take_the_places_of_the_owner() {
    let served = Served::with(2, "").await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(served.tcp).await.expect("the server listens");
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("half a head");
        idle.push(stream);
    }
    let answer =
        served.over_tcp("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = answer.await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.problem().hint.expect("a hint").contains("server.max_connections"));
    assert_eq!(served.call("GET", "/api/v1/server").await.status, 200, "the owner is served");
}

#[tokio::test]
async fn heads_are_bounded_in_count_and_size() {
    let served = Served::start(8).await;
    let many = "X-A: 1\r\n".repeat(100);
    let large = format!("X-A: {}\r\n", "a".repeat(40 << 10));
    for (headers, status) in [(many, 431), (large, 413)] {
        let request = format!(
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n"
        );
        assert_eq!(served.over_tcp(&request).await.status, status);
    }
}
