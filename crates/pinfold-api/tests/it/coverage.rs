//! Every operation of the table has a route that answers, and every route is an operation.

use std::collections::BTreeSet;

use pinfold_api::routed;
use pinfold_auth::{
    OPERATIONS, OperationInfo,
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
    for op in OPERATIONS {
        let (path, body) = sample(op);
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
            _ => assert!(
                (200..300).contains(&answer.status),
                "{}: {} {}",
                op.name,
                answer.status,
                answer.text()
            ),
        }
        assert!(answer.head.contains("x-request-id: req_"), "{}", op.name);
        assert!(answer.head.contains("cache-control: no-store"), "{}", op.name);
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
