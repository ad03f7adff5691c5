//! `/healthz` and `/readyz`: for whoever watches the process. They need no credential and say
//! nothing but how it is.

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use pinfold_types::{Error, ErrorCode};

use crate::reply::Failure;

/// Whether the server is any good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers.
    Ready,
    /// It answers those who are here.
    Leaving,
    /// It cannot write what it would have to: changes are refused.
    Broken,
}

/// The answer, when that is what is asked. A server that leaves, or that has to refuse changes, is
/// alive and not ready.
pub(super) fn answer(request: &Request, health: impl FnOnce() -> Health) -> Option<Response> {
    let status = match request.uri().path() {
        "/healthz" => "ok",
        "/readyz" => match health() {
            Health::Ready => "ready",
            Health::Leaving => "leaving",
            Health::Broken => "unavailable",
        },
        _ => return None,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = format!("{} takes GET and HEAD", request.uri().path());
        return Some(Failure(Error::new(ErrorCode::MethodNotAllowed, message)).into_response());
    }
    let mut response = Response::new(Body::from(format!(r#"{{"status":"{status}"}}"#)));
    if matches!(status, "leaving" | "unavailable") {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_changes_is_alive_and_not_ready() {
        let ask = |path: &str, health| {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            answer(&request, || health).map(|answer| answer.status().as_u16())
        };
        for (health, status) in
            [(Health::Ready, 200), (Health::Leaving, 503), (Health::Broken, 503)]
        {
            assert_eq!(ask("/readyz", health), Some(status));
            assert_eq!(ask("/healthz", health), Some(200));
            assert_eq!(ask("/", health), None);
        }
    }
}
