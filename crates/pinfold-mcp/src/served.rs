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
}

/// Operations that a message needs the right to.
fn needs<N: Node>(tools: &[Entry<N>], message: &ClientJsonRpcMessage) -> Vec<&'static str> {
    let JsonRpcMessage::Request(request) = message else { return Vec::new() };
    match &request.request {
        ClientRequest::InitializeRequest(_) => vec!["mcp.connect"],
        ClientRequest::CallToolRequest(call) => {
            let entry = tools.iter().find(|entry| entry.info.name == call.params.name);
            let arguments = call.params.arguments.clone().unwrap_or_default();
            entry.map(|entry| (entry.needs)(&arguments)).unwrap_or_default()
        }
        ClientRequest::ListResourcesRequest(_) => vec!["workspace.list"],
        ClientRequest::ReadResourceRequest(read) => resources::needs(&read.params.uri),
        _ => Vec::new(),
    }
}

impl<N: Node> Host for Served<N> {
    type Handler = Handler<N>;
    type Lease = Held<N>;

    async fn admit(&self, caller: &Caller, message: &ClientJsonRpcMessage) -> Result<(), Refusal> {
        let needs = needs(&self.tools, message);
        // A client that came in by OAuth can ask its user for more; to others a tool says it.
        if caller.principal().class() == CredentialClass::Mcp {
            step_up(caller, &needs).map_err(|refused| Refusal {
                scope: refused.scope.map(|scopes| self.service.as_it_is_asked_for(scopes)),
                ..refused
            })?;
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pinfold_auth::{Authenticator, Authority, ScopeSet, Surface, Token, TokenKey, TokenRecord};
    use pinfold_node::LocalNode;
    use serde_json::{Value, json};

    use super::*;

    fn message(method: &str, params: &Value) -> ClientJsonRpcMessage {
        let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        serde_json::from_value(text).expect("a message")
    }

    fn call(tool: &str, arguments: &Value) -> ClientJsonRpcMessage {
        message("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    fn caller(scopes: &[&str]) -> Caller {
        let authenticator = Authenticator::new(0, TokenKey::new([1; 32]));
        let token = Token::generate(CredentialClass::Mcp).expect("random");
        let scopes = ScopeSet::parse(scopes).expect("scopes");
        let record = TokenRecord {
            id: token.id(),
            class: token.class(),
            hash: authenticator.hash(&token),
            principal: PrincipalId::generate(),
            name: "client".into(),
            authority: Authority { scopes, ..Authority::all() },
            workspace: None,
            session: None,
            grant: None,
            expires_at: None,
            revoked_at: None,
        };
        let text = token.reveal();
        let now = Timestamp::UNIX_EPOCH;
        let principal = authenticator.bearer(&text, Surface::Mcp, now, |_| Some(&record));
        Caller::new(principal.expect("it stands"), Surface::Mcp)
    }

    #[test]
    fn what_a_message_needs_depends_on_what_it_asks_for() {
        let tools = catalogue::tools::<LocalNode>();
        let control = |action: &str| json!({"workspace": "a", "action": action});
        for (asked, wanted) in [
            (call("exec", &json!({})), vec!["exec.run"]),
            (call("workspace_info", &json!({})), vec!["workspace.read"]),
            (call("workspace_control", &control("pause")), vec!["workspace.pause"]),
            (call("workspace_control", &control("nonsense")), vec![]),
            (
                call("workspace_fork", &json!({"workspace": "a", "commands": ["true"]})),
                vec!["workspace.fork", "exec.start"],
            ),
            (call("workspace_fork", &json!({"snapshot": "a"})), vec!["snapshot.fork"]),
            (
                call("server_info", &json!({"check": true})),
                vec!["server.read", "image.list", "server.doctor"],
            ),
            (call("snapshot_list", &json!({})), vec!["snapshot.list"]),
            (call("session_adopt", &json!({"session": "s"})), vec!["session.takeover"]),
            (call("file_manage", &json!({"action": "chmod"})), vec!["file.chmod"]),
            (call("no_such_tool", &json!({})), vec![]),
            (message("resources/list", &json!({})), vec!["workspace.list"]),
            (
                message("resources/read", &json!({"uri": "pinfold://workspace/a/file/x"})),
                vec!["file.read"],
            ),
            (message("resources/read", &json!({"uri": "file:///etc/passwd"})), vec![]),
            (message("tools/list", &json!({})), vec![]),
        ] {
            assert_eq!(needs(&tools, &asked), wanted, "{asked:?}");
        }
        for entry in &tools {
            for name in (entry.needs)(&rmcp::model::JsonObject::new()) {
                assert!(entry.info.operations.contains(&name), "{} {name}", entry.info.name);
            }
        }
    }

    #[test]
    fn a_client_is_told_the_scopes_that_it_has_and_lacks() {
        let few = caller(&["mcp:connect", "workspace:read"]);
        assert!(step_up(&few, &["workspace.read", "mcp.connect"]).is_ok());
        let refused = step_up(&few, &["exec.list", "exec.attach"]).expect_err("lacks both");
        assert_eq!(refused.error.code, ErrorCode::Forbidden);
        assert_eq!(refused.scope.as_deref(), Some("mcp:connect workspace:read exec:read exec:run"));
        assert!(step_up(&caller(&["*"]), &["exec.list", "audit.list"]).is_ok());
    }
}
