//! Server-sent events (WHATWG HTML, "Server-sent events"): one way, numbered, resumable with
//! `Last-Event-ID`.
//!
//! A task of its own hands events to the connection, a few at a time, so that a stream is counted,
//! ends with its credential and by age (F-08), whether its client reads or not.

use std::{fmt::Write, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use pinfold_auth::Caller;
use pinfold_types::{Error, ErrorCode, Result};
use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    metrics::Metrics,
    streams::{
        STALLED,
        bounds::{Counted, Pulse},
    },
    upgrade::StreamGuard,
};

/// The header by which a client says what it saw last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Most bytes of it.
const MAX_ID_BYTES: usize = 32;
/// A comment is sent this often, so that proxies and clients see that the stream lives.
const ALIVE: Duration = Duration::from_secs(15);
/// Events on their way to the connection.
const WAITING: usize = 16;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event(Bytes);

impl Event {
    /// An event of a kind, with JSON as its data. `id` is what a client that comes back says.
    pub(crate) fn new(id: Option<i64>, kind: &str, data: &impl Serialize) -> Result<Self> {
        let data = serde_json::to_string(data).map_err(Error::internal)?;
        let mut text = String::with_capacity(data.len() + 64);
        if let Some(id) = id {
            let _ = writeln!(text, "id: {id}");
        }
        // JSON from serde has no line break, and kinds are words of ours.
        let _ = write!(text, "event: {kind}\ndata: {data}\n\n");
        Ok(Self(text.into()))
    }

    fn alive() -> Self {
        Self(Bytes::from_static(b":\n\n"))
    }
}

/// A request that becomes a stream of events, counted.
#[derive(Debug)]
pub(crate) struct Events {
    guard: StreamGuard,
    counted: Counted,
    metrics: Metrics,
}

/// The position after which a client wants events: what it saw last, or what its query says.
///
/// # Errors
/// When `Last-Event-ID` is not a number that the server gave.
pub(crate) fn position(headers: &HeaderMap, query: Option<i64>) -> Result<Option<i64>> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(query) };
    let id = value.to_str().ok().filter(|text| text.len() <= MAX_ID_BYTES);
    match id.and_then(|text| text.parse().ok()).filter(|id: &i64| *id >= 0) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::new(
            ErrorCode::InvalidArgument,
            "Last-Event-ID is not the id of an event of this stream",
        )
        .hint("leave it out to begin with what happens from now on")),
    }
}

impl Events {
    /// Counts the stream, or refuses one too many.
    pub(crate) fn new(mut parts: Parts) -> Result<Self> {
        let missing = || Error::internal("a request that cannot become a stream");
        let guard = parts.extensions.remove::<StreamGuard>().ok_or_else(missing)?;
        let caller = parts.extensions.get::<Caller>().ok_or_else(missing)?;
        let counted = guard.count(caller.principal().id())?;
        let metrics = parts.extensions.remove::<Metrics>().unwrap_or_default();
        Ok(Self { guard, counted, metrics })
    }

    /// Answers with `events` until they end, the client goes, the server stops, the credential
    /// ends, or the stream is too old; a client comes back with what it saw last.
    pub(crate) fn answer(
        self,
        events: impl Stream<Item = Result<Event>> + Send + 'static,
    ) -> Response {
        let Self { guard, counted, metrics } = self;
        let (out, waiting) = mpsc::channel(WAITING);
        let open = metrics.stream();
        guard.spawn(move |end, bounds, credential, held| async move {
            let begun = Instant::now();
            let pulse = Pulse::new(begun);
            tokio::select! {
                () = hand_on(events, &out, &pulse) => {}
                () = end.cancelled() => {}
                () = credential.cancelled() => tracing::info!("a stream's credential ended"),
                reached = bounds.reached(begun, &pulse) => {
                    tracing::debug!(why = reached.1, "a stream reached a bound");
                }
            }
            drop((held, counted, open));
        });
        let frames = futures_util::stream::unfold(waiting, |mut waiting| async {
            let Event(bytes) = waiting.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), waiting))
        });
        let mut response = Response::new(Body::from_stream(frames));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // For proxies that gather answers by default.
        headers
            .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        response
    }
}

async fn hand_on(
    events: impl Stream<Item = Result<Event>>,
    out: &mpsc::Sender<Event>,
    pulse: &Pulse,
) {
    tokio::pin!(events);
    let mut alive = tokio::time::interval_at(Instant::now() + ALIVE, ALIVE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = events.next() => match next {
                Some(Ok(event)) => {
                    pulse.beat();
                    event
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a stream of events broke");
                    return;
                }
                None => return,
            },
            _ = alive.tick() => Event::alive(),
            () = out.closed() => return,
        };
        match tokio::time::timeout(STALLED, out.send(next)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_lines_that_no_value_can_forge() {
        let event = Event::new(Some(7), "workspace.create", &"a\nid: 9\n\ndata: x").expect("JSON");
        assert_eq!(event.0, "id: 7\nevent: workspace.create\ndata: \"a\\nid: 9\\n\\ndata: x\"\n\n");
    }

    #[test]
    fn the_last_event_is_a_number_of_ours() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_str(text).expect("a header"));
            position(&headers, Some(3))
        };
        assert_eq!(position(&HeaderMap::new(), Some(3)).expect("the query's"), Some(3));
        assert_eq!(with("12").expect("a number"), Some(12));
        for wrong in ["", "-1", "1.5", "9223372036854775808", "1 2", "abc"] {
            assert_eq!(with(wrong).expect_err(wrong).code, ErrorCode::InvalidArgument);
        }
    }
}
