//! A retry with the same key gets the first answer and acts no second time.

use pinfold_types::ErrorCode as E;

use crate::server::{Answer, Served};

async fn create(served: &Served, key: &str, body: &str) -> Answer {
    let head = format!(
        "POST /api/v1/workspaces HTTP/1.1\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    served.raw(&head, body.as_bytes()).await
}

fn id(answer: &Answer) -> String {
    let value: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    value["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_retry_is_answered_and_not_done_again() {
    let served = Served::start(8).await;
    // Every workspace that the node makes has an id of its own.
    let first = create(&served, "k-1", "{}").await;
    let again = create(&served, "k-1", "{}").await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(id(&first), id(&again));
    assert!(!first.head.contains("idempotency-replayed"), "{}", first.head);
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    assert_ne!(id(&create(&served, "k-2", "{}").await), id(&first));
    assert_ne!(id(&served.json("POST", "/api/v1/workspaces", "{}").await), id(&first));
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let served = Served::start(8).await;
    assert_eq!(create(&served, "k", "{}").await.status, 201);
    let other = create(&served, "k", r#"{"name":"a"}"#).await;
    assert_eq!(other.problem().code, E::Unprocessable);
    let long = "x".repeat(256);
    for bad in ["", "a\u{e9}", "a b", "a\tb", long.as_str()] {
        assert_eq!(create(&served, bad, "{}").await.problem().code, E::InvalidArgument, "{bad:?}");
    }
}

#[tokio::test]
async fn refusals_are_kept_and_faults_are_not() {
    let served = Served::start(8).await;
    let wrong = r#"{"name":"a b"}"#;
    let first = create(&served, "k", wrong).await;
    let again = create(&served, "k", wrong).await;
    let (one, two) = (first.problem(), again.problem());
    assert_eq!((one.code, &one.detail), (two.code, &two.detail));
    // Each answer names its own request, so that the log can be searched for either.
    assert_ne!(one.request_id, two.request_id);
    let head = "POST /api/v1/workspaces/faulty/pause HTTP/1.1\r\nIdempotency-Key: f";
    for _ in 0..2 {
        let answer = served.raw(head, b"").await;
        assert_eq!(answer.problem().code, E::Internal);
        assert!(!answer.head.contains("idempotency-replayed"), "{}", answer.head);
    }
}
