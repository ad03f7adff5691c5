//! From a connection and a request's head to a [`Caller`]: the only place of this room that looks
//! at credentials.
//!
//! What a request presents is taken as a whole: with a credential that does not stand it is
//! refused, even where the connection alone would have been enough.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use pinfold_auth::{Caller, Surface, unauthenticated};
use pinfold_control::{Access, Node, Service};
use pinfold_types::{Error, ErrorCode, RequestId, Result, SessionId};

use crate::{listen::Peer, reply::Failure, upgrade::StreamGuard};

/// The session that a request belongs to. It authenticates nobody (AUTH-05).
pub(crate) const SESSION: HeaderName = HeaderName::from_static("pinfold-session");

/// Recognises the caller of every request, or refuses it.
pub(crate) async fn layer<N: Node>(
    State(service): State<Service<N>>,
    mut request: Request,
    next: Next,
) -> Response {
    let access = service.access();
    match identify(access, &request) {
        Ok(caller) => {
            // A stream ends with the credential that opened it.
            let ended = access.ended(caller.principal());
            if let Some(guard) = request.extensions_mut().get_mut::<StreamGuard>() {
                guard.ends_with(ended);
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            let unknown = error.code == ErrorCode::Unauthenticated;
            if unknown {
                let (surface, peer) = whence(&request);
                service.unknown(surface, peer, &error);
            }
            let mut response = Failure(error).into_response();
            if unknown {
                let challenge = HeaderValue::from_static("Bearer realm=\"pinfold\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

/// Where a request came in, and from which address.
fn whence(request: &Request) -> (Surface, Option<IpAddr>) {
    match request.extensions().get::<Peer>() {
        Some(Peer::Tcp { address, .. }) if request.headers().contains_key(header::UPGRADE) => {
            (Surface::WebSocket, Some(address.ip()))
        }
        Some(Peer::Tcp { address, .. }) => (Surface::Http, Some(address.ip())),
        Some(Peer::Unix(_)) | None => (Surface::Unix, None),
    }
}

fn identify(access: &Access, request: &Request) -> Result<Caller> {
    let peer = request.extensions().get::<Peer>().copied();
    let peer = peer.ok_or_else(|| unauthenticated("a connection of no known kind"))?;
    let (surface, _) = whence(request);
    let principal = match (bearer(request)?, peer) {
        (Some(presented), _) => access.authenticate_bearer(presented, surface)?,
        (None, Peer::Unix(credentials)) => access.authenticate_peer(credentials)?,
        (None, Peer::Tcp { .. }) => return Err(unauthenticated("no credential")),
    };
    let mut caller = Caller::new(principal, surface);
    if let Some(id) = request.extensions().get::<RequestId>() {
        caller = caller.with_request(*id);
    }
    if let Peer::Tcp { address, .. } = peer {
        caller = caller.from_peer(address.ip());
    }
    if let Some(id) = session(request)? {
        if caller.session().is_some_and(|bound| bound != id) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "this credential is bound to another session",
            ));
        }
        caller = caller.in_session(id);
    }
    Ok(caller)
}

/// The text after `Bearer` (RFC 6750 §2.1). Anything else in the header is a credential that does
/// not stand.
fn bearer(request: &Request) -> Result<Option<&str>> {
    let mut all = request.headers().get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(unauthenticated("two Authorization headers"));
    }
    let text = value.to_str().map_err(|_| unauthenticated("not text"))?;
    let (scheme, presented) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthenticated("another scheme than Bearer"));
    }
    Ok(Some(presented.trim_start_matches(' ')))
}

fn session(request: &Request) -> Result<Option<SessionId>> {
    let Some(value) = request.headers().get(&SESSION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map(Some).map_err(|_| {
        Error::new(ErrorCode::InvalidArgument, "Pinfold-Session is not the id of a session")
            .hint("the server makes them: POST /api/v1/sessions")
    })
}
