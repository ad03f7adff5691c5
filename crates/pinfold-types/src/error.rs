//! The one error shape that crosses rooms and surfaces.
//!
//! A public message and a hint for whoever asked, a stable code for programs, and internal
//! context for the log only. The shape on the wire is an RFC 9457 problem document, rendered
//! by `pinfold-api`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shorthand for a result with the public [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $exit:literal;)*) => {
        /// Stable machine-readable error codes: part of the API, never renamed.
        ///
        /// Each has one HTTP status and one process exit code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[$doc])* #[serde(rename = $text)] $variant,)* }

        impl ErrorCode {
            /// Every code, for the documentation and for tests.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The code as it appears in JSON and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text,)* }
            }

            /// The HTTP status of a reply with this code (RFC 9110).
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorCode::$variant => $status,)* }
            }

            /// The exit code of a `pinfold` command that failed with this code.
            ///
            /// `run` and `exec` use 125 instead, so that a command's own codes stay free.
            pub const fn exit_code(self) -> u8 {
                match self { $(ErrorCode::$variant => $exit,)* }
            }
        }
    };
}

codes! {
    /// A value broke a rule; the message names the value and the rule.
    InvalidArgument = "invalid_argument", 400, 2;
    /// A name broke the naming rule.
    InvalidName = "invalid_name", 400, 2;
    /// A path broke the path rule.
    InvalidPath = "invalid_path", 400, 2;
    /// A request body was not the JSON this operation takes.
    InvalidBody = "invalid_body", 400, 2;
    /// No credential, or one that is not valid.
    Unauthenticated = "unauthenticated", 401, 4;
    /// The caller is known and may not do this.
    Forbidden = "forbidden", 403, 4;
    /// No such object, or the caller may not know of it.
    NotFound = "not_found", 404, 3;
    /// The method does not exist on this path.
    MethodNotAllowed = "method_not_allowed", 405, 2;
    /// A name is taken.
    AlreadyExists = "already_exists", 409, 5;
    /// The object is in a state that does not allow this.
    Conflict = "conflict", 409, 5;
    /// The handle names a boot of the workspace that has ended.
    StaleBoot = "stale_boot", 409, 5;
    /// A body, file, frame or count is over its published limit.
    TooLarge = "too_large", 413, 6;
    /// The body has a content type that this operation does not take.
    UnsupportedMedia = "unsupported_media", 415, 2;
    /// The range asked for begins after the end.
    RangeNotSatisfiable = "range_not_satisfiable", 416, 2;
    /// Well formed, and still impossible.
    Unprocessable = "unprocessable", 422, 2;
    /// A rate or count limit was reached; retry later.
    RateLimited = "rate_limited", 429, 6;
    /// A quota would be exceeded.
    QuotaExceeded = "quota_exceeded", 429, 6;
    /// The caller went away or cancelled.
    Cancelled = "cancelled", 499, 7;
    /// A fault of ours; the request id finds it in the log.
    Internal = "internal", 500, 1;
    /// A thing outside answered wrongly (a registry, for example).
    Upstream = "upstream", 502, 8;
    /// A wall cannot stand on this machine, or a limit cannot be enforced: refused.
    CannotEnforce = "cannot_enforce", 503, 9;
    /// A needed program, device or kernel feature is missing; the hint mends it.
    Unavailable = "unavailable", 503, 9;
    /// An upstream or the operation itself took longer than its limit.
    Timeout = "timeout", 504, 7;
    /// The disk or the pool is full. Nothing was lost.
    DiskFull = "disk_full", 507, 6;
    /// The egress guard refused the destination.
    EgressDenied = "egress_denied", 403, 4;
    /// An image or archive is malformed, hostile, or does not match its digest.
    BadImage = "bad_image", 422, 2;
    /// No server is running and none could be started.
    NoServer = "no_server", 503, 10;
}

/// Milliseconds as the whole seconds of a `Retry-After`: rounded up, and one at least.
pub fn whole_seconds(ms: u64) -> u64 {
    ms.div_ceil(1000).max(1)
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong, said so that whoever asked can mend it.
///
/// `message` names the object and the reason, `hint` the next step. `internal` is for the log
/// and never leaves the process: it is skipped by serde and by [`fmt::Display`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Stable code.
    pub code: ErrorCode,
    /// One sentence: which object, and why not. No trailing full stop.
    pub message: String,
    /// The next step, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How long to wait before asking again, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Context for the log only.
    #[serde(skip)]
    pub internal: Option<String>,
}

impl Error {
    /// An error with this code and public message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, retry_after_ms: None, internal: None }
    }

    /// A fault of ours: the public text stays general, `context` goes to the log.
    pub fn internal(context: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, "something went wrong inside Pinfold")
            .hint("look for the request id in the server's log")
            .context(context)
    }

    /// Whole seconds of `Retry-After` (RFC 9110 §10.2.3): as long as the error says, or one second
    /// where it says nothing and is of a kind that passes (429 and 503).
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let busy = matches!(self.code.http_status(), 429 | 503);
        self.retry_after_ms.or(busy.then_some(1000)).map(whole_seconds)
    }

    /// `kind` is the noun ("workspace"), `name` what the caller typed.
    pub fn not_found(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("no {kind} named {name:?}", name = name.to_string()))
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds context for the log; several calls are joined, newest first.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.internal = Some(match self.internal.take() {
            Some(before) => format!("{context}: {before}"),
            None => context.to_string(),
        });
        self
    }

    /// Whether the same request may succeed later without a change.
    pub const fn retryable(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::RateLimited
                | ErrorCode::Timeout
                | ErrorCode::Upstream
                | ErrorCode::NoServer
                | ErrorCode::Unavailable
        )
    }
}
