//! What is asked of a request before its message is looked at.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, header};
use pinfold_control::ByteStream;
use pinfold_types::{Error, ErrorCode, Result, name::excerpt};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, GetMeta, JsonRpcMessage, ProtocolVersion};

use super::{Answer, refuse};
use crate::limits::{BODY_WAIT, MAX_MESSAGE_BYTES};

/// The session of a request.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The revision that the client speaks.
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// Type of the message, types of the answer.
pub(super) fn post(headers: &HeaderMap) -> Result<(), Box<Answer>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case(JSON) {
        let error = Error::new(ErrorCode::UnsupportedMedia, "a message is application/json");
        return Err(Box::new(refuse::refused(&error, None)));
    }
    if accepts(headers, JSON) && accepts(headers, EVENTS) {
        Ok(())
    } else {
        Err(Box::new(refuse::not_acceptable("application/json and text/event-stream")))
    }
}

/// Types of the answer, and the revision.
pub(super) fn get(headers: &HeaderMap) -> Result<(), Box<Answer>> {
    if !accepts(headers, EVENTS) {
        return Err(Box::new(refuse::not_acceptable(EVENTS)));
    }
    known_version(headers).map_err(|error| Box::new(refuse::refused(&error, None)))
}

/// Whether a type is among those that a client takes. One with a weight of zero is not.
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| {
            let mut parts = one.split(';').map(str::trim);
            let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(wanted));
            let zero = |part: &str| {
                let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
                weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
            };
            named && !parts.any(zero)
        })
}

/// The whole body, within its bounds.
pub(super) async fn collect(headers: &HeaderMap, mut body: ByteStream) -> Result<Bytes> {
    let too_large = || {
        Error::new(
            ErrorCode::TooLarge,
            format!("the message is larger than {MAX_MESSAGE_BYTES} bytes"),
        )
        .hint("write large files in parts")
    };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared: Option<usize> = declared.and_then(|text| text.parse().ok());
    if declared.is_some_and(|bytes| bytes > MAX_MESSAGE_BYTES) {
        return Err(too_large());
    }
    let whole = async {
        let mut text = BytesMut::new();
        while let Some(part) = body.next().await {
            let part = part?;
            if text.len() + part.len() > MAX_MESSAGE_BYTES {
                return Err(too_large());
            }
            text.extend_from_slice(&part);
        }
        Ok(text.freeze())
    };
    tokio::time::timeout(BODY_WAIT, whole).await.unwrap_or_else(|_| {
        let seconds = BODY_WAIT.as_secs();
        Err(Error::new(ErrorCode::Timeout, format!("the message took longer than {seconds} s")))
    })
}

/// The revision in the header, where there is one, is one that is served. A message that names its
/// revision itself is answered by the protocol.
pub(super) fn version(headers: &HeaderMap, message: &ClientJsonRpcMessage) -> Result<()> {
    let named = matches!(
        message,
        JsonRpcMessage::Request(request) if request.request.get_meta().protocol_version().is_some()
    );
    if named { Ok(()) } else { known_version(headers) }
}

fn known_version(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(VERSION) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    if ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == text) {
        return Ok(());
    }
    let known: Vec<&str> =
        ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str).collect();
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("MCP-Protocol-Version {:?} is not served", excerpt(text)),
    )
    .hint(format!("revisions are {}", known.join(", "))))
}

/// Whether a message is of a revision without sessions.
pub(super) fn stands_alone(headers: &HeaderMap, message: &ClientJsonRpcMessage) -> bool {
    let newest = |version: &str| version >= ProtocolVersion::V_2026_07_28.as_str();
    let header = headers.get(VERSION).and_then(|value| value.to_str().ok());
    let own = match message {
        JsonRpcMessage::Request(request) => {
            // What a client asks to learn which revisions there are.
            if matches!(request.request, ClientRequest::DiscoverRequest(_)) {
                return true;
            }
            request.request.get_meta().protocol_version()
        }
        _ => None,
    };
    own.is_some_and(|version| newest(version.as_str())) || header.is_some_and(newest)
}
