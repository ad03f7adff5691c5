use futures_util::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn request(id: u64, token: Option<&str>) -> ClientJsonRpcMessage {
    let mut call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": "exec", "arguments": {}}});
    if let Some(token) = token {
        call["params"]["_meta"] = json!({"progressToken": token});
    }
    serde_json::from_value(call).expect("a request")
}

fn response(id: u64, text: &str) -> ServerJsonRpcMessage {
    let content = json!([{"type": "text", "text": text}]);
    serde_json::from_value(json!({"jsonrpc": "2.0", "id": id, "result": {"content": content}}))
        .expect("a response")
}

fn progress(token: &str, done: f64, text: &str) -> ServerJsonRpcMessage {
    serde_json::from_value(json!({"jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": token, "progress": done, "message": text}}))
    .expect("a notification")
}

fn cancelled(id: u64) -> ClientJsonRpcMessage {
    serde_json::from_value(json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": id}}))
    .expect("a notification")
}

/// What a reader has now, and whether the stream is at its end.
fn now(
    stream: &mut (impl Stream<Item = ServerSseMessage> + Unpin),
) -> (Vec<(String, Value)>, bool) {
    let mut all = Vec::new();
    loop {
        match stream.next().now_or_never() {
            None => return (all, false),
            Some(None) => return (all, true),
            Some(Some(event)) => all.push((
                event.event_id.unwrap_or_default(),
                serde_json::to_value(&event.message).expect("plain data"),
            )),
        }
    }
}

fn open(streams: &Arc<Streams>, id: u64, token: Option<&str>) -> Opened {
    streams.open(&request(id, token)).expect("room")
}

#[test]
fn an_answer_waits_for_a_client_that_lost_its_connection() {
    let streams = Arc::<Streams>::default();
    streams.prime();
    let mut first = Box::pin(open(&streams, 7, Some("p")).read());
    let (seen, ended) = now(&mut first);
    assert_eq!((seen.len(), &seen[0].1, ended), (1, &Value::Null, false), "only the number");
    let last = seen[0].0.clone();
    drop(first);
    streams.say(progress("p", 1.0, "half"));
    streams.say(response(7, "whole"));
    for _ in 0..2 {
        let mut again = Box::pin(streams.resume(&last).expect("it is kept"));
        let (seen, ended) = now(&mut again);
        assert!(ended, "an answered stream has an end");
        assert_eq!(seen[0].1["params"]["message"], "half");
        assert_eq!(seen[1].1["result"]["content"][0]["text"], "whole");
        assert_eq!(seen.len(), 2);
    }
    let mut rest = Box::pin(streams.resume("1-1").expect("it is kept"));
    assert_eq!(now(&mut rest).0.len(), 1, "only what comes after");
}

#[test]
fn a_new_connection_takes_the_place_of_the_old_one() {
    let streams = Arc::<Streams>::default();
    let mut old = Box::pin(streams.listen());
    assert!(!now(&mut old).1);
    let mut new = Box::pin(streams.listen());
    assert!(now(&mut old).1, "its reader is another now");
    assert!(!now(&mut new).1);
}

#[test]
fn events_that_never_were_are_refused() {
    let streams = Arc::<Streams>::default();
    let _reading = open(&streams, 1, None).read();
    for wrong in ["", "1", "1-0", "1-x", "x-1", "2-0", "0-0", "1-18446744073709551615", "-", "1--1"]
    {
        assert!(streams.resume(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_request_id_is_taken_until_its_answer_and_requests_are_counted() {
    let streams = Arc::<Streams>::default();
    let reading = open(&streams, 1, None).read();
    let twice = streams.open(&request(1, None)).expect_err("taken");
    assert_eq!(twice.code, ErrorCode::InvalidArgument);
    streams.say(response(1, "done"));
    drop(reading);
    let mut all: Vec<_> = (1..=MAX_STREAMS as u64).map(|id| open(&streams, id, None)).collect();
    let full = streams.open(&request(0, None)).expect_err("full");
    assert_eq!((full.code, full.retry_after_ms), (ErrorCode::RateLimited, Some(1000)));
    // One that never got where it is answered waits for nothing.
    drop(all.pop());
    assert_eq!(streams.waiting(), MAX_STREAMS - 1);
    let _again = open(&streams, 0, None);
}

#[test]
fn what_is_cancelled_is_not_answered() {
    let streams = Arc::<Streams>::default();
    let mut reading = Box::pin(open(&streams, 1, Some("p")).read());
    streams.hear(&cancelled(1));
    assert!(now(&mut reading).1);
    streams.say(response(1, "too late"));
    streams.say(progress("p", 1.0, "too late"));
    let mut alone = Box::pin(streams.listen());
    assert_eq!(now(&mut alone).0, [], "it goes nowhere else");
}

#[test]
fn progress_is_forgotten_before_an_answer_is() {
    let streams = Arc::<Streams>::default();
    let _reading = open(&streams, 1, Some("p")).read();
    for step in 0..10 {
        streams.say(progress("p", f64::from(step), &"x".repeat(MAX_HELD_BYTES / 4)));
    }
    streams.say(response(1, &"y".repeat(2 * MAX_HELD_BYTES)));
    let kept = streams.lock().all[&1].events.len();
    assert_eq!(kept, 1, "the answer alone");
    // The next answer takes the room of the one that was given before.
    let _reading = open(&streams, 2, None).read();
    streams.say(response(2, "small"));
    assert!(!streams.lock().all.contains_key(&1));
    assert!(streams.lock().held_bytes < 1000);
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_a_while() {
    let streams = Arc::<Streams>::default();
    let reading = open(&streams, 1, None).read();
    streams.say(response(1, "done"));
    drop(reading);
    tokio::time::advance(KEPT).await;
    assert!(streams.resume("1-0").is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(streams.resume("1-0").is_err());
    assert_eq!(streams.lock().held_bytes, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Open(u64),
    Progress(u64, usize),
    Answer(u64, usize),
    Cancel(u64),
    Listen,
    Resume(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..6_u64;
    let bytes = prop_oneof![0..2000_usize, (MAX_HELD_BYTES / 3)..MAX_HELD_BYTES];
    prop_oneof![
        id.clone().prop_map(Step::Open),
        (id.clone(), bytes.clone()).prop_map(|(id, bytes)| Step::Progress(id, bytes)),
        (id.clone(), bytes).prop_map(|(id, bytes)| Step::Answer(id, bytes)),
        id.prop_map(Step::Cancel),
        Just(Step::Listen),
        (0..8_u64, 0..4_u64).prop_map(|(stream, event)| Step::Resume(stream, event)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_held_is_counted_and_bounded(steps in proptest::collection::vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()
            .expect("a clock");
        let _clock = runtime.enter();
        let streams = Arc::<Streams>::default();
        let mut readers = Vec::new();
        for step in steps {
            match step {
                Step::Open(id) => {
                    if let Ok(opened) = streams.open(&request(id, Some(&id.to_string()))) {
                        readers.push(opened.read().boxed());
                    }
                }
                Step::Progress(id, bytes) => {
                    streams.say(progress(&id.to_string(), 1.0, &"x".repeat(bytes)));
                }
                Step::Answer(id, bytes) => streams.say(response(id, &"x".repeat(bytes))),
                Step::Cancel(id) => streams.hear(&cancelled(id)),
                Step::Listen => readers.push(streams.listen().boxed()),
                Step::Resume(stream, event) => {
                    if let Ok(reading) = streams.resume(&format!("{stream}-{event}")) {
                        readers.push(reading.boxed());
                    }
                }
            }
            let state = streams.lock();
            let counted: usize = state.all.values()
                .map(|kept| kept.events.iter().map(|event| event.bytes).sum::<usize>())
                .sum();
            prop_assert_eq!(state.held_bytes, counted);
            // Beyond the bound there is only what nobody was told yet, one event a stream.
            if counted > MAX_HELD_BYTES {
                let unanswered = state.all.values().filter(|kept| !kept.events.is_empty()).count();
                prop_assert!(state.all.values().filter(|kept| kept.done.is_some()).count() <= 1);
                prop_assert!(counted <= unanswered * 2 * MAX_HELD_BYTES);
            }
            let waiting = state.all.values().filter(|kept| kept.request.is_some()).count();
            prop_assert_eq!(waiting, state.requests.len());
            prop_assert!(state.tokens.len() <= state.requests.len());
        }
    }
}

#[test]
fn a_connection_that_is_hung_up_loses_nothing() {
    let streams = Arc::<Streams>::default();
    streams.prime();
    let opened = open(&streams, 1, None);
    let hangup = opened.hangup();
    let mut reading = Box::pin(opened.read());
    let (seen, ended) = now(&mut reading);
    assert!(!ended);
    hangup.hang_up();
    assert!(now(&mut reading).1, "the connection ends");
    streams.say(response(1, "done"));
    let mut again = Box::pin(streams.resume(&seen[0].0).expect("it is kept"));
    assert_eq!(now(&mut again).0.len(), 1);
}
