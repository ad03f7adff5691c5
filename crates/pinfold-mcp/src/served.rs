//! The operations over HTTP.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use pinfold_auth::{Caller, CredentialClass, OPERATIONS, ObjectRef, OperationInfo, ops};
use pinfold_control::{McpSession, Node, Service};
use pinfold_types::{Error, ErrorCode, PrincipalId, Result};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    catalogue,
    handler::Handler,
    http::{Host, Lease, Refusal},
    limits::MAX_CALLS,
    resources,
    tool::Entry,
};

/// The operations of a service, for [`crate::http::Endpoint`].
#[derive(Debug)]
pub struct Served<N: Node> {
    service: Service<N>,
    tools: Arc<Vec<Entry<N>>>,
    /// Calls of requests without a session, by principal.
    calls: Mutex<HashMap<PrincipalId, Weak<Semaphore>>>,
}

/// A session of a service.
pub struct Held<N: Node> {
    service: Service<N>,
    session: Arc<McpSession>,
    calls: Arc<Semaphore>,
}

impl<N: Node> std::fmt::Debug for Held<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.session.id()).finish()
    }
}

impl<N: Node> Clone for Held<N> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            session: Arc::clone(&self.session),
            calls: Arc::clone(&self.calls),
        }
    }
}

impl<N: Node> Served<N> {
    /// Serves these operations.
    pub fn new(service: Service<N>) -> Self {
        Self { service, tools: Arc::new(catalogue::tools()), calls: Mutex::default() }
    }

    fn calls_of(&self, caller: &Caller) -> Arc<Semaphore> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let id = caller.principal().id();
        if let Some(known) = calls.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        calls.retain(|_, calls| calls.strong_count() > 0);
        let fresh = Arc::new(Semaphore::new(MAX_CALLS));
        calls.insert(id, Arc::downgrade(&fresh));
        fresh
    }

    /// Operations that a message needs the right to.
    fn needs(&self, message: &ClientJsonRpcMessage) -> Vec<&'static str> {
        let JsonRpcMessage::Request(request) = message else { return Vec::new() };
        match &request.request {
            ClientRequest::InitializeRequest(_) => vec!["mcp.connect"],
            ClientRequest::CallToolRequest(call) => {
                let called = |entry: &&Entry<N>| entry.info.name == call.params.name;
                let arguments = call.params.arguments.clone().unwrap_or_default();
                let entry = self.tools.iter().find(called);
                entry.map(|entry| (entry.needs)(&arguments)).unwrap_or_default()
            }
            ClientRequest::ListResourcesRequest(_) => vec!["workspace.list"],
            ClientRequest::ReadResourceRequest(read) => resources::needs(&read.params.uri),
            _ => Vec::new(),
        }
    }
}

impl<N: Node> Host for Served<N> {
    type Handler = Handler<N>;
    type Lease = Held<N>;

    async fn admit(&self, caller: &Caller, message: &ClientJsonRpcMessage) -> Result<(), Refusal> {
        let needs = self.needs(message);
        // A client that came in by OAuth can ask its user for more; to others a tool says it.
        if caller.principal().class() == CredentialClass::Mcp {
            step_up(caller, &needs)?;
        }
        // What needs a right is counted when that is granted.
        if needs.is_empty() && matches!(message, JsonRpcMessage::Request(_)) {
            self.service.admit(caller).await?;
        }
        Ok(())
    }

    async fn open(&self, caller: &Caller, client: &str) -> Result<Held<N>> {
        let grant = self.service.grant::<ops::McpConnect>(caller, ObjectRef::server()).await?;
        let session = self.service.open_mcp(grant, client).await?;
        Ok(Held {
            service: self.service.clone(),
            session: Arc::new(session),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        })
    }

    fn within(&self, lease: &Held<N>, caller: &Caller) -> Caller {
        caller.clone().in_session(lease.session.id())
    }

    fn handler(&self, lease: Option<&Held<N>>, alone: Option<&Caller>) -> Handler<N> {
        let calls = match (lease, alone) {
            (Some(lease), _) => Arc::clone(&lease.calls),
            (None, Some(caller)) => self.calls_of(caller),
            (None, None) => Arc::new(Semaphore::new(MAX_CALLS)),
        };
        Handler::shared(self.service.clone(), Arc::clone(&self.tools), calls)
    }

    fn ended(&self, caller: &Caller) -> CancellationToken {
        self.service.access().ended(caller.principal())
    }
}

impl<N: Node> Lease for Held<N> {
    fn attend(&self, caller: &Caller) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(self.session.attend(caller.principal().id())?))
    }

    fn stands(&self, caller: &Caller) -> bool {
        self.service.access().check_session(caller.principal(), self.session.id()).is_ok()
    }

    async fn end(self) {
        if let Err(error) = self.session.end().await {
            tracing::error!(cause = error.internal, "a session could not be ended: {error}");
        }
    }
}

/// Refuses what the caller has no right to, and says which rights it takes: those that the caller
/// has and those that it lacks, so that a client which asks for them loses none.
fn step_up(caller: &Caller, needs: &[&str]) -> Result<(), Refusal> {
    let authority = caller.principal().authority();
    let needed = needs.iter().filter_map(|name| OPERATIONS.iter().find(|op| op.name == *name));
    let lacking: Vec<&OperationInfo> = needed.filter(|op| !authority.has(op)).collect();
    let Some(first) = lacking.first() else { return Ok(()) };
    let mut scopes: Vec<&str> = authority.scopes.patterns().collect();
    for operation in &lacking {
        if !scopes.contains(&operation.scope) {
            scopes.push(operation.scope);
        }
    }
    let error = Error::new(
        ErrorCode::Forbidden,
        format!("this credential may not {}: it lacks the scope {}", first.name, first.scope),
    );
    Err(Refusal {
        error: error.hint("ask the user to allow it: authorize again with the scopes given"),
        scope: Some(scopes.join(" ")),
    })
}
