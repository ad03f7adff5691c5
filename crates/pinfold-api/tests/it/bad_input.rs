//! What is wrong gets its own status and words, and nothing else.

use pinfold_types::ErrorCode as E;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::Served;

#[tokio::test]
async fn every_wrong_request_has_its_own_answer() {
    let served = Served::start(64).await;
    let long = format!("/api/v1/workspaces/{}", "x".repeat(20_000));
    let table: &[(&str, &str, Option<&str>, E, &str)] = &[
        // method, path, JSON body, code, words in the answer
        ("GET", "/", None, E::NotFound, "/"),
        ("GET", "/api/v1/nothing", None, E::NotFound, "nothing"),
        ("GET", "/api/v2/workspaces", None, E::NotFound, "v2"),
        ("GET", "/api/v1/workspaces/", None, E::NotFound, "workspaces/"),
        ("PUT", "/api/v1/workspaces", None, E::MethodNotAllowed, "PUT"),
        ("GET", "/api/v1/workspaces/no", None, E::NotFound, "\"no\""),
        ("GET", "/api/v1/workspaces/a%20b", None, E::InvalidName, "a b"),
        ("GET", "/api/v1/workspaces/..%2fetc", None, E::InvalidName, "../etc"),
        ("GET", "/api/v1/workspaces/%00", None, E::InvalidName, "\\0"),
        ("GET", "/api/v1/workspaces/%ff", None, E::InvalidPath, "UTF-8"),
        ("GET", "/api/v1/workspaces/ws_1", None, E::InvalidArgument, "ws_1"),
        ("GET", "/api/v1/snapshots/snap_x", None, E::InvalidArgument, "snap_x"),
        ("GET", "/api/v1/images/A", None, E::InvalidName, "\"A\""),
        ("GET", &long, None, E::TooLarge, "path"),
        ("GET", "/api/v1/workspaces?limit=0", None, E::InvalidArgument, "limit"),
        ("GET", "/api/v1/audit?limit=0", None, E::InvalidArgument, "limit"),
        ("GET", "/api/v1/audit/export?limit=1001", None, E::InvalidArgument, "limit"),
        ("GET", "/api/v1/workspaces?limit=x", None, E::InvalidArgument, "limit"),
        ("GET", "/api/v1/workspaces?cursor=x", None, E::InvalidArgument, "cursor"),
        ("GET", "/api/v1/workspaces?colour=red", None, E::InvalidArgument, "colour"),
        ("GET", "/api/v1/workspaces/fix/files/stat", None, E::InvalidArgument, "path"),
        ("GET", "/api/v1/workspaces/fix/files/stat?path=a", None, E::InvalidPath, "\"a\""),
        ("GET", "/api/v1/workspaces/fix/files/stat?path=%00", None, E::InvalidPath, "\\0"),
        (
            "GET",
            "/api/v1/workspaces/fix/files/content?path=/a&offset=-1",
            None,
            E::InvalidArgument,
            "offset",
        ),
        (
            "PUT",
            "/api/v1/workspaces/fix/files/content?path=/a&mode=4096",
            Some(""),
            E::InvalidArgument,
            "mode",
        ),
        ("GET", "/api/v1/workspaces/fix/ports/0", None, E::InvalidArgument, "\"0\""),
        ("GET", "/api/v1/workspaces/fix/ports/65536", None, E::InvalidArgument, "65536"),
        ("GET", "/api/v1/workspaces/fix/execs/x/attach", None, E::InvalidArgument, "exec_"),
        ("POST", "/api/v1/workspaces", Some("{"), E::InvalidBody, "EOF"),
        ("POST", "/api/v1/workspaces", Some("[]"), E::InvalidBody, "object"),
        ("POST", "/api/v1/workspaces", Some("null"), E::InvalidBody, "object"),
        ("POST", "/api/v1/workspaces", Some("{}{}"), E::InvalidBody, "trailing"),
        ("POST", "/api/v1/workspaces", Some(r#"{"nmae":"a"}"#), E::InvalidBody, "nmae"),
        ("POST", "/api/v1/workspaces", Some(r#"{"name":7}"#), E::InvalidBody, "integer `7`"),
        ("POST", "/api/v1/workspaces", Some(r#"{"name":"a b"}"#), E::InvalidBody, "a b"),
        (
            "POST",
            "/api/v1/workspaces",
            Some(r#"{"limits":{"memory":1}}"#),
            E::InvalidBody,
            "`memory`",
        ),
        (
            "POST",
            "/api/v1/workspaces",
            Some(r#"{"limits":{"memory_bytes":1}}"#),
            E::InvalidArgument,
            "memory_bytes",
        ),
        (
            "POST",
            "/api/v1/workspaces",
            Some(r#"{"env":{"LD_PRELOAD":"x"}}"#),
            E::InvalidArgument,
            "LD_PRELOAD",
        ),
        (
            "POST",
            "/api/v1/workspaces/fix/fork",
            Some(r#"{"count":0}"#),
            E::InvalidArgument,
            "count",
        ),
        (
            "POST",
            "/api/v1/workspaces/fix/execs",
            Some(r#"{"command":{"argv":[]}}"#),
            E::InvalidArgument,
            "empty",
        ),
        ("POST", "/api/v1/workspaces/fix/start", Some("{}"), E::InvalidBody, "no body"),
    ];
    for (method, path, body, code, words) in table {
        let answer = match body {
            Some(body) => served.json(method, path, body).await,
            None => served.call(method, path).await,
        };
        let problem = answer.problem();
        assert_eq!(problem.code, *code, "{method} {path} {body:?}: {}", problem.detail);
        assert!(problem.detail.contains(words), "{method} {path}: {:?}", problem.detail);
    }
}

#[tokio::test]
async fn faults_of_ours_keep_their_cause_to_themselves() {
    let served = Served::start(8).await;
    let answer = served.call("POST", "/api/v1/workspaces/faulty/pause").await;
    let problem = answer.problem();
    assert_eq!((answer.status, problem.code), (500, E::Internal));
    assert!(!answer.text().contains("hunter2"), "{}", answer.text());
}

#[tokio::test]
async fn a_wrong_content_type_is_named() {
    let served = Served::start(8).await;
    for kind in ["text/plain", "application/jsonx", "multipart/form-data"] {
        let head = format!(
            "POST /api/v1/workspaces HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: 2"
        );
        assert_eq!(served.raw(&head, b"{}").await.problem().code, E::UnsupportedMedia, "{kind}");
    }
    let head = "POST /api/v1/workspaces HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2";
    assert_eq!(served.raw(head, b"{}").await.status, 201);
}

#[tokio::test]
async fn bodies_over_their_limit_are_refused_before_and_while_they_come() {
    let served = Served::start(8).await;
    let head = "PATCH /api/v1/workspaces/fix HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 70000";
    // Nothing of the body is sent: its announced length is enough.
    assert_eq!(served.raw(head, b"").await.problem().code, E::TooLarge);
    let head = "PATCH /api/v1/workspaces/fix HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
    let mut body = b"11170\r\n".to_vec();
    body.extend(vec![b' '; 70_000]);
    body.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(served.raw(head, &body).await.problem().code, E::TooLarge);
    let deep = format!("{{\"labels\":{}", "[".repeat(10_000));
    let answer = served.json("PATCH", "/api/v1/workspaces/fix", &deep).await;
    assert_eq!(answer.problem().code, E::InvalidBody);
}

#[tokio::test]
async fn heads_that_are_no_http_end_the_connection() {
    let served = Served::start(8).await;
    let many = "X-1: 1\r\n".repeat(100);
    let wide = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(4 << 20));
    for bytes in [
        b"\x16\x03\x01nonsense\r\n\r\n".to_vec(),
        b"GET /api/v1/server HTTP/9.9\r\n\r\n".to_vec(),
        format!("GET /api/v1/server HTTP/1.1\r\n{many}\r\n").into_bytes(),
        wide.into_bytes(),
        b"POST /api/v1/workspaces HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /api/v1/workspaces HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
            .to_vec(),
    ] {
        let mut stream = served.connect().await;
        let _cut = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    let head = format!("GET /api/v1/server HTTP/1.1\r\nX: {}", "x".repeat(40_000));
    let problem = served.raw(&head, b"").await.problem();
    assert!(problem.code == E::TooLarge && problem.detail.contains("headers"), "{problem:?}");
    assert_eq!(served.call("GET", "/api/v1/server").await.status, 200);
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so() {
    let served = Served::start(2).await;
    let held = [served.connect().await, served.connect().await];
    // The server has seen both when a third is refused; its refusal is the event waited for.
    let answer = served.call("GET", "/api/v1/server").await;
    let problem = answer.problem();
    assert_eq!((answer.status, problem.code), (429, E::RateLimited));
    assert!(problem.detail.contains("2 connections") && answer.head.contains("retry-after: 1"));
    drop(held);
}
