//! What is said about an operation, and the macro that says it once.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ObjectKind;

/// HTTP methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads, and WebSocket upgrades.
    Get,
    /// Makes or does.
    Post,
    /// Replaces.
    Put,
    /// Changes named fields.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Nothing. A body is refused.
    None,
    /// JSON of at most this many bytes.
    Json(usize),
    /// Raw bytes of any length, taken as they come; the workspace's disk is the limit.
    Stream,
}

/// How the answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// One JSON document, or nothing (204).
    Json,
    /// Raw bytes.
    Bytes,
    /// One JSON document a line while work goes on.
    Lines,
    /// Server-sent events for as long as the client stays.
    Events,
    /// The connection becomes a WebSocket.
    WebSocket,
}

/// Which bucket a call is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateClass {
    /// Makes workspaces, snapshots or images.
    Create,
    /// Starts a command.
    Exec,
    /// Everything else.
    Default,
    /// Signs in.
    Login,
    /// Holds a stream open.
    Stream,
}

impl RateClass {
    /// Every class.
    pub const ALL: &'static [Self] =
        &[Self::Create, Self::Exec, Self::Default, Self::Login, Self::Stream];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Exec => "exec",
            Self::Default => "default",
            Self::Login => "login",
            Self::Stream => "stream",
        }
    }
}

/// What happens when the same call is made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    /// Nothing is changed by any number of calls.
    Safe,
    /// The second finds done what it asks for.
    Idempotent,
    /// Each call acts. A retry needs an idempotency key to be one.
    Acts,
}

/// One line of the operation table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OperationInfo {
    /// `noun.verb`, for ever.
    pub name: &'static str,
    /// What it is done to.
    pub object: ObjectKind,
    /// The right it needs, `noun:right`.
    pub scope: &'static str,
    /// Its rate class.
    pub rate: RateClass,
    /// Method of its route.
    pub method: Method,
    /// Path of its route, with `{ref}`, `{exec}` and `{port}`.
    pub path: &'static str,
    /// What a request carries.
    pub body: Body,
    /// How the answer comes.
    pub reply: Reply,
    /// What a second call does.
    pub repeat: Repeat,
    /// The verb in events and, later, the audit log.
    pub audit: &'static str,
    /// One sentence.
    pub doc: &'static str,
}

impl OperationInfo {
    /// Whether it changes something, and so is recorded.
    pub const fn mutates(&self) -> bool {
        !matches!(self.repeat, Repeat::Safe)
    }
}

impl Reply {
    /// Whether the answer goes on until one side ends it, and so counts as a stream.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Events | Self::WebSocket)
    }
}

pub(crate) mod sealed {
    /// Only the table implements [`super::Operation`].
    pub trait Sealed {}
}

/// An operation, as a type. Implemented by the types in [`crate::ops`] and by nothing else.
pub trait Operation: sealed::Sealed + Send + Sync + 'static {
    /// Its line of the table.
    const INFO: OperationInfo;
}

macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident $name:literal on $object:ident, scope $scope:literal, rate $rate:ident,
        $method:ident $path:literal, $body:expr => $reply:ident, $repeat:ident, audit $audit:literal;
    )*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub struct $variant(());

            impl crate::operation::sealed::Sealed for $variant {}

            impl crate::operation::Operation for $variant {
                const INFO: crate::operation::OperationInfo = crate::operation::OperationInfo {
                    name: $name,
                    object: crate::ObjectKind::$object,
                    scope: $scope,
                    rate: crate::operation::RateClass::$rate,
                    method: crate::operation::Method::$method,
                    path: concat!("/api/v1", $path),
                    body: $body,
                    reply: crate::operation::Reply::$reply,
                    repeat: crate::operation::Repeat::$repeat,
                    audit: $audit,
                    doc: concat!($($doc),+),
                };
            }
        )*

        /// Every operation, in the order of the documentation.
        pub const OPERATIONS: &[crate::operation::OperationInfo] = &[
            $(<$variant as crate::operation::Operation>::INFO,)*
        ];
    };
}

pub(crate) use operations;
