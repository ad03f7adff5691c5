//! The one shape of a failed reply: an RFC 9457 problem document with `code`, `hint` and
//! `request_id`.

use pinfold_types::{Error, ErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Media type of a problem document (RFC 9457 §3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document. `detail` is the sentence for people, `code` the word for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:pinfold:error:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What was asked and why not.
    pub detail: String,
    /// Stable code.
    pub code: ErrorCode,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Wait this long before asking again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Finds the request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// The document for `error`. Its internal context stays behind.
    pub fn new(error: &Error, request_id: Option<String>) -> Self {
        let code = error.code.as_str();
        Self {
            kind: format!("urn:pinfold:error:{code}"),
            title: code.replace('_', " "),
            status: error.code.http_status(),
            detail: error.message.clone(),
            code: error.code,
            hint: error.hint.clone(),
            retry_after_ms: error.retry_after_ms,
            request_id,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let mut error = Self::new(problem.code, problem.detail);
        error.hint = problem.hint;
        error.retry_after_ms = problem.retry_after_ms;
        error
    }
}
