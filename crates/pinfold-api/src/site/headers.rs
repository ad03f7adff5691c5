//! Headers that tell a browser what it must not do with an answer.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::listen::Peer;

/// Answers of the API are data: nothing in them runs, loads or is framed. A page that needs more
/// says so itself, and never `unsafe-inline` (F-02).
const POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// On every answer.
static ALWAYS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), \
         payment=(), serial=(), usb=()",
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// A browser that came over TLS does not come back without, for a year.
const TRANSPORT: &str = "max-age=31536000";

/// What a page of another origin may send: credentials in a header, never a cookie.
const MAY_SEND: &str = "authorization, content-type, idempotency-key, if-none-match, last-event-id, \
     mcp-method, mcp-name, mcp-protocol-version, mcp-session-id, pinfold-session, range, if-range";
/// What it may read beside the body.
const MAY_READ: &str = "content-range, etag, mcp-session-id, retry-after, www-authenticate, \
     x-request-id, ratelimit-limit, ratelimit-remaining, ratelimit-reset";
/// Methods of the API.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
/// How long a browser may remember the answer to a preflight, in seconds.
const REMEMBER: &str = "600";

/// Adds them. A page may have a policy of its own.
pub(crate) fn secure(headers: &mut HeaderMap, peer: Option<Peer>, named_loopback: bool) {
    for (name, value) in &ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    // Not for loopback names: it would hold for every other server there, at any port.
    if matches!(peer, Some(Peer::Tcp { tls: true, .. })) && !named_loopback {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(TRANSPORT));
    }
}

/// Lets a page of this configured origin read the answer; to all others, answers nothing.
pub(super) fn cross_origin(headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(MAY_READ));
    }
}

/// The answer to a preflight.
pub(super) fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, MAY_SEND),
        (header::ACCESS_CONTROL_MAX_AGE, REMEMBER),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
