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

/// The answer, when that is what is asked. A server that leaves is alive and not ready.
pub(super) fn answer(request: &Request, leaving: bool) -> Option<Response> {
    let status = match (request.uri().path(), leaving) {
        ("/healthz", _) => "ok",
        ("/readyz", false) => "ready",
        ("/readyz", true) => "leaving",
        _ => return None,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = format!("{} takes GET and HEAD", request.uri().path());
        return Some(Failure(Error::new(ErrorCode::MethodNotAllowed, message)).into_response());
    }
    let mut response = Response::new(Body::from(format!(r#"{{"status":"{status}"}}"#)));
    if status == "leaving" {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(response)
}
