//! `Idempotency-Key`: a retry of a call that acts gets the answer of the first.
//!
//! Answers are kept in memory, for a day, [`MAX_KEYS`] at most. They end with the server: a key
//! guards against a lost connection, not against a lost server, after which the state itself says
//! what was done. The work runs to its end also when the caller has gone, because its answer is
//! what the retry will ask for.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pinfold_auth::Caller;
use pinfold_types::{Error, ErrorCode, PrincipalId, limits::MAX_BODY_BYTES};
use tracing::Instrument as _;

use crate::{reply::Failure, site::is_mcp};

/// The header of a request.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key.
pub(crate) const MAX_KEY_BYTES: usize = 255;
/// Most keys that are known at once; the oldest make way.
const MAX_KEYS: usize = 4096;
/// Largest answer that is kept. A larger one is given once.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// Longest wait for a body that has to be compared.
const BODY_WAIT: Duration = Duration::from_mins(1);

/// Who asks with which key.
type Asked = (PrincipalId, String);

/// Keys and their answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    calls: HashMap<Asked, Call>,
    order: VecDeque<(Instant, Asked)>,
}

#[derive(Clone, Debug)]
struct Call {
    /// Of method, target and body: another request with the same key is a mistake.
    print: u64,
    /// Absent while the first one runs.
    answer: Option<Answer>,
}

#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    kind: Option<HeaderValue>,
    body: Bytes,
    /// A failure is kept as such, so that its problem document names the retry's own request.
    error: Option<Error>,
}

/// What to do with a request.
enum Turn {
    Run,
    Replay(Answer),
    Refuse(Error),
}

impl Keys {
    fn begin(&self, asked: &Asked, print: u64) -> Turn {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while known.order.front().is_some_and(|(since, _)| {
            known.order.len() >= MAX_KEYS || now.duration_since(*since) > KEPT
        }) {
            if let Some((_, old)) = known.order.pop_front() {
                known.calls.remove(&old);
            }
        }
        match known.calls.get(asked) {
            None => {
                known.calls.insert(asked.clone(), Call { print, answer: None });
                known.order.push_back((now, asked.clone()));
                Turn::Run
            }
            Some(call) if call.print != print => Turn::Refuse(
                Error::new(
                    ErrorCode::Unprocessable,
                    "this Idempotency-Key was used for another request",
                )
                .hint("use a fresh key for every request, and the same only for its retries"),
            ),
            Some(Call { answer: Some(answer), .. }) => Turn::Replay(answer.clone()),
            Some(Call { answer: None, .. }) => {
                let mut error =
                    Error::new(ErrorCode::Conflict, "the first request with this key still runs");
                error.retry_after_ms = Some(1000);
                Turn::Refuse(error)
            }
        }
    }

    /// Keeps the answer, or forgets the key when there is none worth keeping.
    fn end(&self, asked: &Asked, answer: Option<Answer>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.is_none() {
            known.calls.remove(asked);
            known.order.retain(|(_, known)| known != asked);
        } else if let Some(call) = known.calls.get_mut(asked) {
            call.answer = answer;
        }
    }
}

/// Forgets a key whose call came to no answer at all.
struct Pending {
    keys: Keys,
    asked: Asked,
    done: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            self.keys.end(&self.asked, None);
        }
    }
}

/// The layer. Requests without the header, uploads and streams pass through.
pub(crate) async fn layer(State(keys): State<Keys>, request: Request, next: Next) -> Response {
    // A request of MCP has an id of its own, and its answer may be a stream.
    let acts = matches!(*request.method(), Method::POST | Method::PATCH | Method::DELETE)
        && !is_mcp(request.uri().path());
    let Some(key) = request.headers().get(KEY).filter(|_| acts) else {
        return next.run(request).await;
    };
    let readable =
        (1..=MAX_KEY_BYTES).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
    let Some(key) = key.to_str().ok().filter(|_| readable).map(str::to_owned) else {
        return Failure(Error::new(
            ErrorCode::InvalidArgument,
            format!("an Idempotency-Key has 1 to {MAX_KEY_BYTES} visible ASCII characters"),
        ))
        .into_response();
    };
    let Some(caller) = request.extensions().get::<Caller>() else { return next.run(request).await };
    let json = request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| {
        kind.as_bytes().trim_ascii_start().to_ascii_lowercase().starts_with(b"application/json")
    });
    if !json {
        return next.run(request).await;
    }
    let asked = (caller.principal().id(), key);
    let (parts, body) = request.into_parts();
    let whole = tokio::time::timeout(BODY_WAIT, to_bytes(body, MAX_BODY_BYTES)).await;
    let Ok(Ok(body)) = whole else {
        return Failure(Error::new(
            ErrorCode::TooLarge,
            format!("no body of at most {MAX_BODY_BYTES} bytes came in time"),
        ))
        .into_response();
    };
    let mut hasher = DefaultHasher::new();
    (parts.method.as_str(), parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str), &body)
        .hash(&mut hasher);
    match keys.begin(&asked, hasher.finish()) {
        Turn::Refuse(error) => Failure(error).into_response(),
        Turn::Replay(answer) => answer.replay(),
        Turn::Run => {
            let pending = Pending { keys, asked, done: false };
            let request = Request::from_parts(parts, Body::from(body));
            let work = async move {
                // Whole: its parts alone would leave the guard outside, to forget at once.
                let mut pending = pending;
                let (response, answer) = keep(next.run(request).await).await;
                if let Some(answer) = answer {
                    pending.keys.end(&pending.asked, Some(answer));
                    pending.done = true;
                }
                response
            };
            let work = tokio::spawn(work.in_current_span());
            work.await.unwrap_or_else(|panic| Failure(Error::internal(panic)).into_response())
        }
    }
}

/// The response, and what of it is kept: every answer that a retry would otherwise change, so no
/// fault of ours and nothing that asks to be retried.
async fn keep(response: Response) -> (Response, Option<Answer>) {
    let (parts, body) = response.into_parts();
    let error = parts.extensions.get::<Error>().cloned();
    let kind = parts.headers.get(header::CONTENT_TYPE).cloned();
    let is_json = kind.as_ref().is_none_or(|kind| kind.as_bytes() == b"application/json");
    let small = axum::body::HttpBody::size_hint(&body)
        .upper()
        .is_some_and(|most| usize::try_from(most).is_ok_and(|most| most <= MAX_ANSWER_BYTES));
    let final_answer = error.as_ref().is_none_or(|error| !error.retryable())
        && !parts.status.is_server_error()
        && parts.status != StatusCode::SWITCHING_PROTOCOLS;
    if !(is_json && small && final_answer) {
        return (Response::from_parts(parts, body), None);
    }
    match to_bytes(body, MAX_ANSWER_BYTES).await {
        Ok(body) => {
            let answer = Answer { status: parts.status, kind, body: body.clone(), error };
            (Response::from_parts(parts, Body::from(body)), Some(answer))
        }
        Err(error) => (Failure(Error::internal(error)).into_response(), None),
    }
}

impl Answer {
    fn replay(self) -> Response {
        let mut response = match self.error {
            Some(error) => Failure(error).into_response(),
            None => Response::new(Body::from(self.body)),
        };
        *response.status_mut() = self.status;
        if let Some(kind) = self.kind {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}
