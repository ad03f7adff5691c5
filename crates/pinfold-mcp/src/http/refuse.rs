//! Refusals: an exact status, and a JSON-RPC error that says why and what to do.

use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use pinfold_types::{Error, ErrorCode};
use rmcp::model::{ErrorData, RequestId};
use serde_json::json;

use super::{Answer, host::Refusal};
use crate::message;

/// JSON-RPC's range for the server's own errors (JSON-RPC 2.0 §5.1).
const SERVER_ERROR: rmcp::model::ErrorCode = rmcp::model::ErrorCode(-32_000);
/// The code that clients know for a session that is not.
const NO_SESSION: rmcp::model::ErrorCode = rmcp::model::ErrorCode(-32_001);

fn answer(status: StatusCode, error: ErrorData, id: Option<RequestId>) -> Answer {
    let text = serde_json::to_vec(&message::refusal(error, id)).unwrap_or_default();
    let mut answer = Response::new(Full::from(text).boxed_unsync());
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// An error of ours, under its status.
pub(super) fn refused(error: &Error, id: Option<RequestId>) -> Answer {
    if error.code == ErrorCode::Internal {
        tracing::error!(cause = error.internal, "a request of MCP failed");
    }
    let status =
        StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = match error.code {
        ErrorCode::InvalidArgument | ErrorCode::InvalidBody => {
            rmcp::model::ErrorCode::INVALID_REQUEST
        }
        ErrorCode::Internal => rmcp::model::ErrorCode::INTERNAL_ERROR,
        _ => SERVER_ERROR,
    };
    let mut data = json!({"code": error.code});
    if let Some(hint) = &error.hint {
        data["hint"] = hint.as_str().into();
    }
    if let Some(ms) = error.retry_after_ms {
        data["retry_after_ms"] = ms.into();
    }
    let mut answer = answer(status, ErrorData::new(code, error.message.clone(), Some(data)), id);
    if let Some(seconds) = error.retry_after_seconds() {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// What the host refuses. A scope that a client can ask for is in the challenge (RFC 6750 §3.1);
/// whoever routes the request adds where.
pub(super) fn refusal(refusal: &Refusal, id: Option<RequestId>) -> Answer {
    let mut answer = refused(&refusal.error, id);
    if let Some(scope) = &refusal.scope {
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    answer
}

/// Text that is no message.
pub(super) fn malformed(error: ErrorData, id: Option<RequestId>) -> Answer {
    answer(StatusCode::BAD_REQUEST, error, id)
}

/// The same for a session that never was, has ended, or is somebody else's.
pub(super) fn unknown_session() -> Answer {
    let data = json!({"code": ErrorCode::NotFound, "hint": "begin a new session: initialize"});
    let error = ErrorData::new(NO_SESSION, "there is no such session", Some(data));
    answer(StatusCode::NOT_FOUND, error, None)
}

/// A request that belongs into a session, without one.
pub(super) fn session_required(id: Option<RequestId>) -> Answer {
    let hint = "begin one with initialize and send the Mcp-Session-Id of the answer; requests of \
                2026-07-28 need none";
    let error = Error::new(ErrorCode::InvalidArgument, "this request needs a session").hint(hint);
    refused(&error, id)
}

/// A method that the endpoint does not take.
pub(super) fn method(method: &Method) -> Answer {
    let message = format!("this does not take {method}");
    let mut answer = refused(&Error::new(ErrorCode::MethodNotAllowed, message), None);
    let allowed = HeaderValue::from_static("GET, POST, DELETE");
    answer.headers_mut().insert(header::ALLOW, allowed);
    answer
}

/// An answer of a type that the client does not want (RFC 9110 §15.5.7).
pub(super) fn not_acceptable(wanted: &'static str) -> Answer {
    let message = format!("this answers with {wanted}, so a request has to accept it");
    let error = Error::new(ErrorCode::InvalidArgument, message);
    let mut answer = refused(&error, None);
    *answer.status_mut() = StatusCode::NOT_ACCEPTABLE;
    answer
}
