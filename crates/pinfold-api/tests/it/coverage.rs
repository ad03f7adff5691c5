//! Every operation of the table has a route that answers, and every route is an operation.

use std::collections::BTreeSet;

use pinfold_api::routed;
use pinfold_auth::{
    OPERATIONS, ObjectKind, OperationInfo,
    operation::{Body, Reply},
};
use pinfold_types::ExecId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{node::FakeNode, server::Served};

#[test]
fn routes_and_operations_are_the_same() {
    let routes: BTreeSet<&str> = routed::<FakeNode>().into_iter().collect();
    let table: BTreeSet<&str> = OPERATIONS.iter().map(|op| op.name).collect();
    assert_eq!(routes, table);
    assert_eq!(routed::<FakeNode>().len(), OPERATIONS.len(), "an operation has two routes");
}

/// A request that the operation accepts.
fn sample(op: &OperationInfo) -> (String, Option<&'static str>) {
    let path = op
        .path
        .replace("{ref}", "fix")
        .replace("{exec}", &ExecId::generate().to_string())
        .replace("{port}", "80");
    let query = match op.name {
        "file.stat" | "file.list" | "file.read" | "file.write" | "file.watch" | "archive.read"
        | "archive.write" => "?path=/a",
        _ => "",
    };
    let body = match op.name {
        "workspace.restore" => r#"{"snapshot":"s"}"#,
        "exec.start" => r#"{"command":{"argv":["true"]}}"#,
        "token.create" => r#"{"name":"fix"}"#,
        "exec.signal" => r#"{"signal":15}"#,
        "file.mkdir" | "file.remove" => r#"{"path":"/a"}"#,
        "file.rename" => r#"{"from":"/a","to":"/b"}"#,
        "file.chmod" => r#"{"path":"/a","mode":420}"#,
        "image.pull" => r#"{"image":"debian:12"}"#,
        "image.import" => r#"{"name":"a","source":{"from":"debian","suite":"sid"}}"#,
        "image.build" => r#"{"name":"a","steps":"FROM host"}"#,
        _ => "{}",
    };
    (format!("{path}{query}"), (op.body != Body::None).then_some(body))
}

#[tokio::test]
async fn every_operation_answers() {
    let served = Served::start(64).await;
    let session = served.json("POST", "/api/v1/sessions", "{}").await;
    let session: serde_json::Value = serde_json::from_str(&session.text()).expect("a session");
    let session = session["id"].as_str().expect("an id").to_owned();
    for op in OPERATIONS {
        let (mut path, body) = sample(op);
        if op.object == ObjectKind::Session {
            path = path.replace("/fix", &format!("/{session}"));
        }
        // An answer that does not end is asked for wrongly; the route is there all the same.
        if op.reply == Reply::Events {
            path.push_str("?nonsense=1");
        }
        let answer = match body {
            Some(body) => served.json(op.method.as_str(), &path, body).await,
            None => served.call(op.method.as_str(), &path).await,
        };
        match op.reply {
            // Without an upgrade there is no stream; the route is there all the same.
            Reply::WebSocket => {
                assert_eq!(answer.status, 400, "{}", op.name);
                assert!(answer.problem().detail.contains("WebSocket"), "{}", op.name);
            }
            Reply::Events => assert_eq!(answer.status, 400, "{}", op.name),
            _ => assert!(
                (200..300).contains(&answer.status),
                "{}: {} {}",
                op.name,
                answer.status,
                answer.text()
            ),
        }
        assert!(answer.head.contains("x-request-id: req_"), "{}", op.name);
        // The document says nothing about this server's objects, and is the same until the next one.
        let kept = if op.name == "server.openapi" { "no-cache" } else { "no-store" };
        assert!(answer.head.contains(&format!("cache-control: {kept}")), "{}", op.name);
    }
}

#[tokio::test]
async fn long_work_tells_every_step_and_ends_with_the_image_or_the_error() {
    let served = Served::start(8).await;
    let pulled = served.json("POST", "/api/v1/images/pull", r#"{"image":"debian:12"}"#).await;
    let text = pulled.text();
    assert!(pulled.head.contains("application/x-ndjson"), "{}", pulled.head);
    assert_eq!(text.matches("\"event\":\"step\"").count(), 200);
    assert_eq!(text.matches("\"event\":\"done\"").count(), 1);
    assert!(text.find("step 199").expect("the last step") < text.find("done").expect("the end"));

    let request = "%7B%22name%22%3A%22a%22%2C%22source%22%3A%7B%22from%22%3A%22upload%22%7D%7D";
    let head = format!(
        "POST /api/v1/images/import?request={request} HTTP/1.1\r\nContent-Type: application/x-tar\r\nContent-Length: 5"
    );
    let imported = served.raw(&head, b"12345").await.text();
    assert!(imported.contains("5 bytes") && imported.contains("\"event\":\"done\""), "{imported}");

    let bad_steps = r#"{"name":"a","steps":"X"}"#;
    let built = served.json("POST", "/api/v1/images/build", bad_steps).await.text();
    assert!(built.contains("\"event\":\"failed\"") && built.contains("bad_image"), "{built}");
}

#[tokio::test]
async fn an_image_may_be_called_like_an_operation_beside_it() {
    let served = Served::start(8).await;
    for name in ["pull", "import", "build", "prune", "host"] {
        let path = format!("/api/v1/images/{name}");
        let read = served.call("GET", &path).await;
        assert_eq!(read.status, 200, "{name}: {}", read.text());
        let removed = served.call("DELETE", &path).await;
        assert_eq!(removed.status, 200, "{name}: {}", removed.text());
        let export = served.call("GET", &format!("{path}/export")).await;
        assert_eq!(export.status, 200, "{name}: {}", export.text());
    }
    assert_eq!(served.call("GET", "/api/v1/images/-x").await.status, 400);
    assert_eq!(served.call("PATCH", "/api/v1/images/pull").await.status, 405);
}

#[tokio::test]
async fn one_range_of_a_file_is_given_and_one_beyond_it_is_refused() {
    let served = Served::start(8).await;
    let read = |range: &'static str, query: &'static str| {
        let served = &served;
        async move {
            let path = format!("/api/v1/workspaces/fix/files/content?path=/a{query}");
            served.raw(&format!("GET {path} HTTP/1.1\r\n{range}"), b"").await
        }
    };
    let whole = read("Accept: */*", "").await;
    assert_eq!(whole.status, 200);
    assert!(whole.head.contains("accept-ranges: bytes"), "{}", whole.head);
    for (range, span, body) in [
        ("Range: bytes=0-0", "bytes 0-0/3", "a"),
        ("Range: bytes=1-", "bytes 1-2/3", "bc"),
        ("Range: bytes=-2", "bytes 1-2/3", "bc"),
        ("Range: bytes=1-99", "bytes 1-2/3", "bc"),
    ] {
        let part = read(range, "").await;
        assert_eq!(part.status, 206, "{range}: {}", part.head);
        assert!(part.head.contains(&format!("content-range: {span}")), "{}", part.head);
        assert!(part.head.contains(&format!("content-length: {}", body.len())), "{}", part.head);
        assert_eq!(part.text(), body);
    }
    let beyond = read("Range: bytes=3-", "").await;
    assert_eq!(beyond.status, 416);
    assert!(beyond.head.contains("content-range: bytes */3"), "{}", beyond.head);
    assert_eq!(beyond.problem().code.as_str(), "range_not_satisfiable");
    for (ignored, query) in [
        ("Range: bytes=0-0,2-2", ""),
        ("Range: lines=1-2", ""),
        ("Range: bytes=0-0\r\nIf-Range: \"x\"", ""),
        ("Range: bytes=0-0", "&length=2"),
    ] {
        let answer = read(ignored, query).await;
        assert_eq!(answer.status, 200, "{ignored}");
        assert!(!answer.head.contains("content-range"), "{}", answer.head);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_cut_and_not_ended() {
    let served = Served::start(8).await;
    let whole = served.call("GET", "/api/v1/workspaces/fix/files/content?path=/a").await;
    assert!(whole.text().ends_with("0\r\n\r\n"), "{}", whole.text());
    let mut stream = served.connect().await;
    let head = "GET /api/v1/workspaces/fix/files/content?path=/broken HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("the request");
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes).await;
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
}
