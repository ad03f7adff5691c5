//! Requests that nobody's client sends: each has a status, none a panic.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use pinfold_control::ByteStream;
use pinfold_types::{Error, ErrorCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::serve;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn request(method: Method, headers: &[(&str, &str)], body: Vec<u8>) -> Request<ByteStream> {
    let mut request = Request::builder().method(method).uri("/mcp");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let parts = futures_util::stream::iter([Ok(Bytes::from(body))]);
    let mut request = request.body(Box::pin(parts) as ByteStream).expect("well formed");
    request.extensions_mut().insert(serve::owner());
    request
}

const TYPES: [(&str, &str); 2] =
    [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

async fn status(request: Request<ByteStream>) -> StatusCode {
    serve::endpoint().handle(request).await.status()
}

/// A message with pieces of others in it.
fn almost() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/]{0,12}".prop_map(Value::from),
        Just(json!("2.0")),
        Just(json!("tools/call")),
        Just(json!("initialize")),
        Just(json!("2026-07-28")),
    ];
    let value = leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let key = prop_oneof![
        Just("jsonrpc"),
        Just("id"),
        Just("method"),
        Just("params"),
        Just("result"),
        Just("error"),
        Just("_meta"),
        Just("x"),
    ];
    proptest::collection::vec((key, value), 0..6).prop_map(|fields| {
        let mut message = json!({"jsonrpc": "2.0", "method": "ping", "id": 1});
        for (key, value) in fields {
            message[key] = value;
        }
        message
    })
}

fn is_an_answer(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 202 | 400 | 404)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_have_an_answer(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let status = runtime().block_on(status(request(Method::POST, &TYPES, body)));
        prop_assert_eq!(status, 400);
    }

    #[test]
    fn anything_like_a_message_has_an_answer(
        message in almost(),
        version in prop_oneof![
            Just(None), Just(Some("2025-11-25")), Just(Some("2026-07-28")), Just(Some("x")),
        ],
    ) {
        let mut headers = TYPES.to_vec();
        headers.extend(version.map(|version| ("mcp-protocol-version", version)));
        let body = message.to_string().into_bytes();
        let status = runtime().block_on(status(request(Method::POST, &headers, body)));
        prop_assert!(is_an_answer(status), "{} {}", status, message);
    }

    #[test]
    fn any_head_has_an_answer(
        kind in "[ -~]{0,40}", accept in "[ -~]{0,60}", session in "[ -~]{0,80}",
        event in "[ -~]{0,40}", which in 0..3_usize,
    ) {
        let method = [Method::POST, Method::GET, Method::DELETE][which].clone();
        let headers = [
            ("content-type", kind.as_str()), ("accept", accept.as_str()),
            ("mcp-session-id", session.as_str()), ("last-event-id", event.as_str()),
        ];
        let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_vec();
        let status = runtime().block_on(status(request(method, &headers, ping)));
        prop_assert!(matches!(status.as_u16(), 404 | 406 | 415), "{status}");
    }
}

#[test]
fn a_body_that_breaks_or_is_too_large_is_told_so() {
    runtime().block_on(async {
        let broken = Error::new(ErrorCode::Cancelled, "the body ended before it was whole");
        for (parts, wanted) in [
            (vec![Ok(Bytes::from_static(b"{")), Err(broken)], 499),
            ((0..9).map(|_| Ok(Bytes::from(vec![b' '; 1 << 20]))).collect(), 413),
        ] {
            let mut asked = request(Method::POST, &TYPES, Vec::new());
            *asked.body_mut() = Box::pin(futures_util::stream::iter(parts));
            assert_eq!(status(asked).await, wanted);
        }
    });
}

#[test]
fn what_a_client_may_ask_more_rights_for_is_in_the_challenge() {
    runtime().block_on(async {
        let list = br#"{"jsonrpc":"2.0","id":7,"method":"resources/list","params":{}}"#.to_vec();
        let mut headers = TYPES.to_vec();
        headers.push(("mcp-protocol-version", "2026-07-28"));
        let asked = request(Method::POST, &headers, list);
        let answer = serve::narrow().handle(asked).await;
        assert_eq!(answer.status(), 403);
        assert_eq!(
            answer.headers()[header::WWW_AUTHENTICATE],
            "Bearer error=\"insufficient_scope\", scope=\"a:b c:d\""
        );
    });
}
