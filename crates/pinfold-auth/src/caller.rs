//! One caller of one call, as surfaces carry it.

use std::net::IpAddr;

use pinfold_types::{RequestId, SessionId};

use crate::{Principal, Surface};

/// A principal, the way it came in, and the call that it makes.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Principal,
    surface: Surface,
    peer: Option<IpAddr>,
    session: Option<SessionId>,
    request: RequestId,
}

impl Caller {
    /// A call with a fresh request id. A credential that is bound to a session is in it.
    pub fn new(principal: Principal, surface: Surface) -> Self {
        let session = principal.session();
        Self { principal, surface, peer: None, session, request: RequestId::generate() }
    }

    /// From this address.
    #[must_use]
    pub fn from_peer(self, address: IpAddr) -> Self {
        Self { peer: Some(address.to_canonical()), ..self }
    }

    /// In this session, which the service checks to be the principal's own.
    #[must_use]
    pub fn in_session(self, session: SessionId) -> Self {
        Self { session: Some(session), ..self }
    }

    /// Another call of the same caller.
    #[must_use]
    pub fn with_request(self, request: RequestId) -> Self {
        Self { request, ..self }
    }

    /// Who.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Where it came in.
    pub const fn surface(&self) -> Surface {
        self.surface
    }

    /// From where; absent on the unix socket.
    pub const fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// In which session; absent: the principal's default one.
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Which request.
    pub const fn request(&self) -> RequestId {
        self.request
    }
}
