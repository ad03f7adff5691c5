//! Replies: JSON, bytes, lines, and failures that the outermost layer turns into problems.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pinfold_types::{Error, Result};
use serde::Serialize;

/// What a handler answers.
pub(crate) type Reply = Result<Response, Failure>;

/// A failed call. [`crate::layers`] writes the problem document, because only it knows the
/// request's id.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(self.0.code.http_status());
        response.extensions_mut().insert(self.0);
        response
    }
}

/// The status of a failure.
pub(crate) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// When to come back (RFC 9110 §10.2.3), where that is known.
pub(crate) fn retry_after(headers: &mut HeaderMap, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// 200 with JSON.
pub(crate) fn json(value: &impl Serialize) -> Reply {
    with_status(StatusCode::OK, value)
}

/// 201 with JSON.
pub(crate) fn created(value: &impl Serialize) -> Reply {
    with_status(StatusCode::CREATED, value)
}

/// 204.
pub(crate) fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn with_status(status: StatusCode, value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value).map_err(Error::internal)?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    typed(&mut response, "application/json");
    Ok(response)
}

/// Raw bytes as they come. A failure in the middle breaks the connection off, so that a client
/// cannot take a part for the whole.
pub(crate) fn bytes(
    kind: &'static str,
    stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::from_stream(stream));
    typed(&mut response, kind);
    response
}

/// One JSON object a line.
pub(crate) fn lines<T: Serialize>(stream: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = stream.map(|item| {
        serde_json::to_vec(&item).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        })
    });
    let mut response = Response::new(Body::from_stream(lines));
    typed(&mut response, "application/x-ndjson");
    response
}

/// Bytes that stay the same until `tag` changes: 304 for a caller that has them (RFC 9110 §13.1.2).
pub(crate) fn cached(
    asked: &HeaderMap,
    kind: &'static str,
    text: Bytes,
    tag: &'static str,
) -> Response {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|tags| {
            tags.split(',')
                .map(str::trim)
                .any(|one| one == "*" || one.trim_start_matches("W/") == tag)
        })
    });
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(text))
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_static(tag));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if !known {
        typed(&mut response, kind);
    }
    response
}

fn typed(response: &mut Response, kind: &'static str) {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
}
