//! What a client can do to a connection: bytes that are no request or two, bodies that come slowly,
//! badly or not at all. Each gets its own status, changes nothing, and the next caller is served.

use std::time::Duration;

use pinfold_types::ErrorCode as E;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Answer, Served};

/// Sends these bytes and reads until the server closes.
async fn exchange(served: &Served, bytes: &[u8]) -> String {
    let mut stream = served.connect().await;
    let _cut = stream.write_all(bytes).await;
    let _half = stream.shutdown().await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Statuses of the answers in a text of several.
fn statuses(text: &str) -> Vec<&str> {
    text.split("HTTP/1.1 ").skip(1).map(|rest| rest.get(..3).unwrap_or_default()).collect()
}

const INNER: &str = "DELETE /api/v1/workspaces/fix HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_request_whose_end_could_be_read_in_two_ways_never_hides_another() {
    let served = Served::start(64).await;
    let post = "POST /api/v1/workspaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for (shape, head, body) in [
        ("two lengths", "Content-Length: 2\r\nContent-Length: 60\r\n", "{}"),
        ("a list of lengths", "Content-Length: 2, 60\r\n", "{}"),
        ("a signed length", "Content-Length: +2\r\n", "{}"),
        ("a negative length", "Content-Length: -2\r\n", "{}"),
        ("a length beyond all", "Content-Length: 99999999999999999999\r\n", "{}"),
        ("a hexadecimal length", "Content-Length: 0x2\r\n", "{}"),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("chunks that are not last", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("a name with a space", "Content-Length : 2\r\n", "{}"),
        ("a folded line", "X: a\r\n b\r\nContent-Length: 2\r\n", "{}"),
        ("a bare return", "X: a\rY: b\r\nContent-Length: 2\r\n", "{}"),
        ("a NUL", "X: a\0b\r\nContent-Length: 2\r\n", "{}"),
    ] {
        let bytes = format!("{post}{head}\r\n{body}{INNER}");
        let text = exchange(&served, bytes.as_bytes()).await;
        assert_eq!(statuses(&text), ["400"], "{shape}: {text}");
    }
    // The coding wins, and the connection ends with the answer (RFC 9112 §6.3): what follows is
    // nobody's request.
    for both in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n",
    ] {
        let bytes = format!("{post}{both}\r\n0\r\n\r\n{INNER}");
        let text = exchange(&served, bytes.as_bytes()).await;
        assert_eq!(statuses(&text), ["201"], "{text}");
        assert!(text.contains("connection: close"), "{text}");
    }
}

#[tokio::test]
async fn chunks_that_are_none_are_a_malformed_body() {
    let served = Served::start(64).await;
    for chunks in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2;x=\n\r\n{}\r\n0\r\n\r\n",
    ] {
        for path in ["POST /api/v1/workspaces", "PUT /api/v1/workspaces/fix/files/content?path=/a"]
        {
            let head = format!(
                "{path} HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
            );
            let problem = served.raw(&head, chunks.as_bytes()).await.problem();
            assert_eq!(problem.code, E::InvalidBody, "{path} {chunks:?}: {}", problem.detail);
        }
    }
    assert_eq!(served.call("GET", "/api/v1/server").await.status, 200);
}

#[tokio::test]
async fn a_body_that_never_comes_ends_with_its_time() {
    let served = Served::start(64).await;
    let mut stream = served.connect().await;
    let head = "POST /api/v1/workspaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("the beginning");
    // The clock goes on by itself whenever nothing else does.
    tokio::time::pause();
    let mut bytes = Vec::new();
    let _closed = stream.read_to_end(&mut bytes).await;
    let problem = Answer::parse(&bytes).problem();
    assert_eq!(problem.code, E::Timeout);
    assert!(problem.detail.contains("60 s"), "{}", problem.detail);
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let served = Served::start(64).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET /api/v1/server HTTP/1.1\r\nHost: x\r\n").await.expect("the beginning");
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let mut bytes = Vec::new();
    let _closed = stream.read_to_end(&mut bytes).await;
    assert!(begun.elapsed() <= Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(!String::from_utf8_lossy(&bytes).contains(" 200 "));
}

#[tokio::test]
async fn a_client_that_dies_in_mid_stream_leaves_nothing_open() {
    let served = Served::start(64).await;
    for beginning in [
        "PUT /api/v1/workspaces/fix/files/content?path=/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        "PUT /api/v1/workspaces/fix/archive?path=/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "POST /api/v1/workspaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        "GET /api/v1/workspaces/fix/files/content?path=/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /api/v1/ser",
    ] {
        let mut stream = served.connect().await;
        stream.write_all(beginning.as_bytes()).await.expect("the beginning");
        drop(stream);
    }
    let idle = served.activity.idle_for(Duration::from_millis(1));
    tokio::time::timeout(Duration::from_secs(10), idle).await.expect("every connection ends");
    assert_eq!(served.call("GET", "/api/v1/server").await.status, 200);
}

#[tokio::test]
async fn json_that_is_too_deep_too_large_or_says_two_things_is_refused() {
    let served = Served::start(64).await;
    let deep = |open: &str, close: &str| {
        format!("{{\"labels\":{}1{}}}", open.repeat(1000), close.repeat(1000))
    };
    let bodies = [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        r#"{"limits":{"memory_bytes":1e999}}"#.to_owned(),
        r#"{"limits":{"memory_bytes":123456789012345678901234567890}}"#.to_owned(),
        r#"{"limits":{"memory_bytes":33554432.5}}"#.to_owned(),
        r#"{"limits":{"memory_bytes":-1}}"#.to_owned(),
        r#"{"limits":{"memory_bytes":"33554432"}}"#.to_owned(),
        r#"{"name":"a","name":"b"}"#.to_owned(),
        r#"{"env":{"A":"1","A":"2"}}"#.to_owned(),
        r#"{"labels":{"a":"1","a":"2"}}"#.to_owned(),
        "{\"name\":\"a\u{0}\"}".to_owned(),
        r#"{"name":"\ud800"}"#.to_owned(),
        "\u{feff}{}".to_owned(),
        "{'name':'a'}".to_owned(),
        "{\"name\":NaN}".to_owned(),
        "{,}".to_owned(),
    ];
    for body in &bodies {
        let shown: String = body.chars().take(80).collect();
        let problem = served.json("POST", "/api/v1/workspaces", body).await.problem();
        assert_eq!(problem.code, E::InvalidBody, "{shown}: {}", problem.detail);
    }
    let mut bytes = br#"{"name":""#.to_vec();
    bytes.extend_from_slice(b"\xff\xfe\"}");
    let head = format!(
        "POST /api/v1/workspaces HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}",
        bytes.len()
    );
    assert_eq!(served.raw(&head, &bytes).await.problem().code, E::InvalidBody);
}

#[tokio::test]
async fn queries_say_each_thing_once_in_utf8_and_only_where_there_are_any() {
    let served = Served::start(64).await;
    let stat = "/api/v1/workspaces/fix/files/stat";
    for (path, words) in [
        (format!("{stat}?path=/a&path=/b"), "duplicate"),
        (format!("{stat}?path=/%ff"), "UTF-8"),
        (format!("{stat}?path=/%c3%28"), "UTF-8"),
        (format!("{stat}?path=/a&{}=1", "x".repeat(5000)), "unknown field"),
        ("/api/v1/server?a=1".to_owned(), "takes no query"),
        ("/api/v1/workspaces/fix?x".to_owned(), "takes no query"),
        ("/api/v1/workspaces?limit=99999999999999999999".to_owned(), "limit"),
        ("/api/v1/workspaces?limit=1e2".to_owned(), "limit"),
        ("/api/v1/workspaces?cursor=".to_owned(), "cursor"),
    ] {
        let problem = served.call("GET", &path).await.problem();
        assert_eq!(problem.code, E::InvalidArgument, "{path}: {}", problem.detail);
        assert!(problem.detail.contains(words), "{path}: {}", problem.detail);
    }
    assert_eq!(served.call("GET", "/api/v1/server?").await.status, 200);
    assert_eq!(served.call("GET", &format!("{stat}?path=/%c3%a9+%2b")).await.status, 200);
}

#[tokio::test]
async fn methods_that_a_path_does_not_take_are_told_which_it_does() {
    let served = Served::start(64).await;
    for (method, path, allowed) in [
        ("TRACE", "/api/v1/server", "get,head"),
        ("OPTIONS", "/api/v1/workspaces", "get,head,post"),
        ("PUT", "/api/v1/workspaces/fix", "get,head,patch,delete"),
        ("CONNECT", "/api/v1/server", "get,head"),
        ("BREW", "/api/v1/images/pull", "get,head,post,delete"),
        // Sessions have ids and no names: none is called `adopt`.
        ("DELETE", "/api/v1/sessions/adopt", "post"),
    ] {
        let answer = served.call(method, path).await;
        assert_eq!(answer.problem().code, E::MethodNotAllowed, "{method} {path}");
        let line = answer.head.lines().find_map(|line| line.strip_prefix("allow: "));
        let mut named: Vec<&str> = line.unwrap_or_default().split(',').map(str::trim).collect();
        let mut wanted: Vec<&str> = allowed.split(',').collect();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{method} {path}: {}", answer.head);
    }
    let head = served.call("HEAD", "/api/v1/server").await;
    assert!(head.status == 200 && head.body.is_empty(), "{}", head.text());
}

#[tokio::test]
async fn the_document_and_its_page_are_served_once_and_known_again() {
    let served = Served::start(64).await;
    for path in ["/api/v1/openapi.json", "/api/docs", "/api/docs/page.css", "/api/docs/page.js"] {
        let answer = served.call("GET", path).await;
        assert_eq!(answer.status, 200, "{path}");
        let tag = answer.head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
        let again = format!("GET {path} HTTP/1.1\r\nIf-None-Match: \"x\", W/{tag}");
        let again = served.raw(&again, b"").await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        if path.starts_with("/api/docs") {
            let policy = "content-security-policy: default-src 'none'; script-src 'self'";
            assert!(answer.head.contains(policy), "{}", answer.head);
            assert!(!answer.text().contains("http://") && !answer.text().contains("https://"));
            assert!(!answer.text().contains("innerHTML") && !answer.text().contains("style="));
        }
    }
}
