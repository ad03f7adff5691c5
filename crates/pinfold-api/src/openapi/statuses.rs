//! The statuses that an operation can fail with, and the documents that come with them.

use pinfold_auth::{
    ObjectKind, OperationInfo,
    operation::{Body, Reply},
};
use pinfold_types::ErrorCode;
use serde_json::{Map, Value, json};

use super::shape::Shape;
use crate::problem::PROBLEM_JSON;

/// Statuses of failures that every operation shares: a malformed request, a caller that is not
/// known or may not, a session that is not there, a head over its limits, a rate, a fault of ours, a
/// wall or program that is missing, a time limit.
const ALWAYS: &[u16] = &[400, 401, 403, 404, 413, 414, 429, 431, 500, 503, 504];

/// What a connection answers by itself, before there is a request that could have an id: a target
/// or headers over its own bounds, which are larger than those that 413 tells of.
const BY_THE_CONNECTION: &[(u16, &str)] = &[
    (414, "The target is longer than a connection takes (64 KiB). There is no document."),
    (431, "The headers are larger or more than a connection takes. There is no document."),
];

/// Headers that tell a caller what is left of its rate.
pub(super) const RATE: &[&str] = &["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];

/// Every status that the operation can fail with, in order.
pub(super) fn of(operation: &OperationInfo, shape: &Shape) -> Vec<u16> {
    let mut statuses = ALWAYS.to_vec();
    if operation.object != ObjectKind::Server || operation.path.contains('{') {
        statuses.extend([404, 409, 422]);
    }
    if operation.mutates() {
        // 409 and 422 are also what a reused Idempotency-Key gets.
        statuses.extend([409, 422, 507]);
    }
    if operation.body != Body::None {
        statuses.extend([415, 499]);
    }
    if operation.reply == Reply::Lines {
        statuses.extend([404, 502]);
    }
    if shape.ranges {
        statuses.push(416);
    }
    statuses.extend(shape.also);
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// A reference to the reply with this status.
pub(super) fn reference(status: u16) -> Value {
    let bare = BY_THE_CONNECTION.iter().any(|(of, _)| *of == status);
    let kind = if bare { "Refused" } else { "Problem" };
    json!({ "$ref": format!("#/components/responses/{kind}{status}") })
}

/// Every reply of [`reference`]: the codes that have its status, in words.
pub(super) fn responses() -> Map<String, Value> {
    let statuses: std::collections::BTreeSet<u16> =
        ErrorCode::ALL.iter().map(|code| code.http_status()).collect();
    let response = |status: u16| {
        let codes: Vec<String> = ErrorCode::ALL
            .iter()
            .filter(|code| code.http_status() == status)
            .map(|code| format!("`{code}`"))
            .collect();
        let mut headers = json!({ "X-Request-Id": header("X-Request-Id") });
        if matches!(status, 429 | 503) {
            headers["Retry-After"] = header("Retry-After");
        }
        if status == 401 {
            headers["WWW-Authenticate"] = header("WWW-Authenticate");
        }
        if status == 416 {
            headers["Content-Range"] = header("Content-Range");
        }
        let document = json!({
            "description": format!("A problem document (RFC 9457) with the code {}.", codes.join(" or ")),
            "headers": headers,
            "content": {
                PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } },
            },
        });
        (format!("Problem{status}"), document)
    };
    let bare = BY_THE_CONNECTION
        .iter()
        .map(|(status, words)| (format!("Refused{status}"), json!({ "description": words })));
    statuses.into_iter().map(response).chain(bare).collect()
}

/// A reference to a header of [`headers`].
pub(super) fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

/// Every header that a reply can have.
pub(super) fn headers() -> Value {
    let text = |description: &str, required: bool| {
        json!({
            "description": description,
            "required": required,
            "schema": { "type": "string" },
        })
    };
    let number = |description: &str| json!({ "description": description, "schema": { "type": "integer", "minimum": 0 } });
    json!({
        "RateLimit-Limit": number("Calls of this class that can be saved up."),
        "RateLimit-Remaining": number("Calls of this class that are left."),
        "RateLimit-Reset": number("Seconds until all of them are there again."),
        "X-Request-Id": {
            "description": "Finds the request in the server's log and in the audit log.",
            "required": true,
            "schema": { "$ref": "#/components/schemas/RequestId" },
        },
        "Retry-After": {
            "description": "Seconds to wait before asking again (RFC 9110 §10.2.3).",
            "required": true,
            "schema": { "type": "integer", "minimum": 1 },
        },
        "WWW-Authenticate": text("How to say who one is (RFC 9110 §11.6.1).", false),
        "Content-Range": text("Which bytes of how many these are (RFC 9110 §14.4).", false),
        "Accept-Ranges": text("`bytes`: parts can be asked for (RFC 9110 §14.3).", false),
        "ETag": text("Names this version (RFC 9110 §8.8.3).", true),
        "Idempotency-Replayed": text(
            "`true` when this is the answer of an earlier call with the same Idempotency-Key.",
            false,
        ),
    })
}
