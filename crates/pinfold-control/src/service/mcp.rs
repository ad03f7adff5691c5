//! MCP: who may speak it, and the sessions that a connection of its own does not hold open.

use jiff::Timestamp;
use pinfold_auth::{Caller, Grant, PrincipalKind, operation::RateClass, ops};
use pinfold_types::{PrincipalId, Result, SessionId, access::CreateSession};

use crate::{
    Node, RateState, Service, Tracked,
    access::{Access, sessions::SessionFlight},
};

/// A session of MCP over HTTP, where requests come and go. It counts as one open stream of its
/// principal until it is dropped.
#[derive(Debug)]
pub struct McpSession {
    access: Access,
    id: Tracked<SessionId>,
    /// Made for it, so it ends with it.
    own: bool,
}

/// Somebody listens: the session is alive as long as this is held.
#[derive(Debug)]
pub struct Attendance {
    _flight: SessionFlight,
}

impl McpSession {
    /// The session that owns what is made in it.
    pub fn id(&self) -> SessionId {
        *self.id
    }

    /// Keeps the session alive while a client listens to it without calling.
    pub fn attend(&self, principal: PrincipalId) -> Result<Attendance> {
        let flight = self.access.sessions().begin(self.id(), principal, Timestamp::now())?;
        Ok(Attendance { _flight: flight })
    }

    /// Ends it: what it owned is an orphan from then on.
    pub async fn end(&self) -> Result<()> {
        if self.own {
            self.access.sessions().end(self.id(), Timestamp::now()).await
        } else {
            Ok(())
        }
    }
}

impl<N: Node> Service<N> {
    /// Lets a client speak MCP as long as what comes back is held. What it calls is granted call by
    /// call.
    pub async fn connect_mcp(&self, grant: Grant<ops::McpConnect>) -> Result<Tracked<()>> {
        self.enter(grant)?.stream(Ok(())).await
    }

    /// The same for a client without a connection of its own: with a new session, or in the one
    /// that its credential is for. `client` is what it calls itself.
    pub async fn open_mcp(
        &self,
        grant: Grant<ops::McpConnect>,
        client: &str,
    ) -> Result<McpSession> {
        let call = self.enter(grant)?;
        let chosen = call.caller().session();
        let made = if let Some(id) = chosen {
            Ok(id)
        } else {
            let principal = call.caller().principal().id();
            let request = CreateSession { client: client.to_owned() };
            let made = self.access().sessions().create(principal, request, Timestamp::now()).await;
            made.map(|info| info.id)
        };
        let id = call.stream_with(made, |id| vec![id.to_string()]).await?;
        Ok(McpSession { access: self.access().clone(), id, own: chosen.is_none() })
    }

    /// Counts a request that asks for no grant in the caller's rate, or refuses it.
    pub async fn admit(&self, caller: &Caller) -> Result<Option<RateState>> {
        let principal = caller.principal();
        let owner = matches!(principal.kind(), PrincipalKind::Owner { .. });
        let rates = self.access().rates();
        rates.take(principal.id(), owner, RateClass::Default, Timestamp::now()).await
    }
}
