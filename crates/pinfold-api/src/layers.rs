//! What holds for every request: an id, bounds, headers, problem documents, one log line.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pinfold_types::{
    Error, ErrorCode, RequestId,
    config::{Host, split_port},
};
use tracing::{Instrument, field::Empty};

use crate::{
    listen::Peer,
    metrics::Metrics,
    problem::{PROBLEM_JSON, Problem},
    reply::{Failure, retry_after},
    site::secure,
};

/// Most bytes of a path with its query: `PATH_MAX` percent-encoded, and room.
const MAX_TARGET_BYTES: usize = 16 << 10;
/// Most bytes of all headers, names and values. The connection's own bound cuts off much larger
/// ones before they are read.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// The header that carries a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer.
pub(crate) async fn frame(
    State(metrics): State<Metrics>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::generate();
    let begun = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let peer = request.extensions().get::<Peer>().copied();
    let named_loopback = named_loopback(&request);
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let connection = match peer {
        Some(Peer::Tcp { .. }) => "http",
        _ => "unix",
    };
    let measured = metrics.begin(&method, route, connection);
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(metrics);
    let span = tracing::debug_span!(
        target: pinfold_types::spans::TARGET,
        "request",
        operation = measured.operation(),
        surface = measured.surface(),
        request.id = %id,
        http.request.method = method_word(&method),
        http.response.status_code = Empty,
        principal.id = Empty,
        principal.kind = Empty,
        outcome = Empty,
        error.code = Empty,
        traceparent = Empty,
    );
    let mut waited = Waited(Some(span.clone()));
    let mut response = if target > MAX_TARGET_BYTES {
        let message = format!("the path is longer than {MAX_TARGET_BYTES} bytes");
        Failure(Error::new(ErrorCode::TooLarge, message)).into_response()
    } else if header_bytes(&request) > MAX_HEADER_BYTES {
        let message = format!("the headers are larger than {MAX_HEADER_BYTES} bytes");
        Failure(Error::new(ErrorCode::TooLarge, message)).into_response()
    } else {
        next.run(request).instrument(span.clone()).await
    };
    waited.0 = None;
    let failed = response.extensions_mut().remove::<Error>();
    if let Some(error) = &failed {
        log(error, id);
        problem(&mut response, error, id);
    }
    span.record("http.response.status_code", response.status().as_u16());
    if let Some(error) = &failed {
        span.record("error.code", error.code.as_str());
    }
    span.record("outcome", outcome(response.status()));
    drop(span);
    let took = begun.elapsed();
    measured.answered(response.status(), failed.map(|error| error.code), took);
    let (operation, status) = (measured.operation(), response.status().as_u16());
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(%id, %method, path, operation, status, took_us, "request");
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    secure(headers, peer, named_loopback);
    response
}

/// Says in a request's span that nobody waited for its answer.
struct Waited(Option<tracing::Span>);

impl Drop for Waited {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            span.record("outcome", "abandoned");
        }
    }
}

/// A method as a word of a fixed set.
fn method_word(method: &Method) -> &'static str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let words = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.iter().position(|known| known == method).map_or("_OTHER", |at| words[at])
}

fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..400 => "ok",
        400..500 => "refused",
        _ => "fault",
    }
}

fn header_bytes(request: &Request) -> usize {
    request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Whether the request calls us by a loopback name.
fn named_loopback(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    host.and_then(split_port)
        .and_then(|(host, _port)| host.parse::<Host>().ok())
        .is_some_and(|host| host.is_loopback())
}

/// A fault of ours is an error of the log; what a caller did wrong is not.
fn log(error: &Error, id: RequestId) {
    let cause = error.internal.as_deref().unwrap_or_default();
    if error.code == ErrorCode::Internal {
        tracing::error!(%id, code = %error.code, message = error.message, cause, "request failed");
    } else {
        tracing::debug!(%id, code = %error.code, message = error.message, cause, "request refused");
    }
}

fn problem(response: &mut Response, error: &Error, id: RequestId) {
    let document = Problem::new(error, Some(id.to_string()));
    *response.body_mut() = Body::from(serde_json::to_vec(&document).unwrap_or_default());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.remove(header::CONTENT_LENGTH);
    if response.status() == StatusCode::UNAUTHORIZED {
        // RFC 6750 §3. A surface that knows more has said more.
        response
            .headers_mut()
            .entry(header::WWW_AUTHENTICATE)
            .or_insert(HeaderValue::from_static("Bearer realm=\"pinfold\""));
    }
    retry_after(response.headers_mut(), error.retry_after_seconds());
}

/// No such path.
pub(crate) async fn no_route(request: Request) -> Failure {
    let path = pinfold_types::name::excerpt(request.uri().path());
    Failure(
        Error::new(ErrorCode::NotFound, format!("there is no route {path:?}"))
            .hint("GET /api/v1/operations lists every route"),
    )
}

/// The path exists with another method.
pub(crate) async fn no_method(request: Request) -> Failure {
    let path = pinfold_types::name::excerpt(request.uri().path());
    Failure(Error::new(
        ErrorCode::MethodNotAllowed,
        format!("{path:?} does not take {}", request.method()),
    ))
}
