//! What is served over HTTP, as the transport sees it.

use std::any::Any;

use pinfold_auth::Caller;
use pinfold_types::{Error, Result};
use rmcp::{ServerHandler, model::ClientJsonRpcMessage};
use tokio_util::sync::CancellationToken;

/// Who answers requests, and who may ask.
pub trait Host: Send + Sync + 'static {
    /// Speaks the protocol's methods.
    type Handler: ServerHandler + Send + 'static;
    /// What a session holds until its end.
    type Lease: Lease;

    /// Whether a caller may say this, before anything of the answer is sent.
    fn admit(
        &self,
        caller: &Caller,
        message: &ClientJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Begins a session for a client that calls itself so.
    fn open(
        &self,
        caller: &Caller,
        client: &str,
    ) -> impl Future<Output = Result<Self::Lease>> + Send;

    /// A caller, in this session.
    fn within(&self, lease: &Self::Lease, caller: &Caller) -> Caller;

    /// Answers in a session, or a request of `alone` that belongs to none. The caller of each
    /// request is in its extensions.
    fn handler(&self, lease: Option<&Self::Lease>, alone: Option<&Caller>) -> Self::Handler;

    /// Cancelled when the caller's credential ends.
    fn ended(&self, caller: &Caller) -> CancellationToken;
}

/// What a session holds. Cheap to clone; all clones are of the same session.
pub trait Lease: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// Held while the client listens.
    fn attend(&self, caller: &Caller) -> Result<Box<dyn Any + Send>>;

    /// Whether it still stands for this caller.
    fn stands(&self, caller: &Caller) -> bool;

    /// The session is over.
    fn end(self) -> impl Future<Output = ()> + Send;
}

/// Why a caller may not say something.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// For whoever asked.
    pub error: Error,
    /// The scopes with which it would have been allowed, for a client that can ask for more
    /// (RFC 6750 §3.1), separated by spaces.
    pub scope: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, scope: None }
    }
}
