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
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use pinfold_auth::{Caller, ForeignToken, Principal, PrincipalKind, Surface, unauthenticated};
use pinfold_control::{Access, Node, Service, Visitor};
use pinfold_types::{Error, ErrorCode, RequestId, Result, SessionId, spans};

use crate::{
    listen::Peer,
    login::find_cookie,
    reply::Failure,
    site::{Called, Page, is_mcp, protected_resource},
    upgrade::StreamGuard,
};

/// The session that a request belongs to. It authenticates nobody (AUTH-05).
pub(crate) const SESSION: HeaderName = HeaderName::from_static("pinfold-session");

/// Recognises the caller of every request, or refuses it.
pub(crate) async fn layer<N: Node>(
    State(service): State<Service<N>>,
    mut request: Request,
    next: Next,
) -> Response {
    let access = service.access();
    let taken = taken_in(&service, &mut request).await;
    let identified = taken.and_then(|()| take_ticket(&mut request));
    let identified = identified.and_then(|ticket| identify(access, &request, ticket.as_deref()));
    match identified {
        Ok(caller) => {
            // A stream ends with the credential that opened it.
            let ended = access.ended(caller.principal());
            if let Some(guard) = request.extensions_mut().get_mut::<StreamGuard>() {
                guard.ends_with(ended);
            }
            tell(&caller, request.headers());
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            let unknown = error.code == ErrorCode::Unauthenticated;
            if unknown {
                let (surface, peer) = whence(&request);
                let id = request.extensions().get::<RequestId>().copied();
                service.unknown(surface, peer, id, &error);
            }
            let challenge = unknown.then(|| mcp_challenge(&request)).flatten();
            let mut response = Failure(error).into_response();
            if let Some(challenge) = challenge {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

/// Has a token that another provider may have given verified when it is new.
async fn taken_in<N: Node>(service: &Service<N>, request: &mut Request) -> Result<()> {
    let Some(token) = bearer(request)?.and_then(ForeignToken::of) else { return Ok(()) };
    let text = token.text().to_owned();
    let (surface, address) = whence(request);
    let id = request.extensions().get::<RequestId>().copied();
    let visitor = Visitor::new(address, id.unwrap_or_else(RequestId::generate));
    let origin = request.extensions().get::<Called>().map(|called| called.origin.to_string());
    let mcp = format!("{}/mcp", origin.unwrap_or_default());
    service.take_in(&text, surface, &mcp, &visitor).await
}

/// Says in the request's span who calls, and of which trace it is a part. What strangers say of
/// traces is not looked at.
fn tell(caller: &Caller, headers: &HeaderMap) {
    let span = tracing::Span::current();
    if span.is_disabled() {
        return;
    }
    let principal = caller.principal();
    span.record("principal.id", tracing::field::display(principal.id()));
    span.record("principal.kind", principal.kind().as_str());
    let mut contexts = headers.get_all(spans::TRACEPARENT).iter();
    let context = contexts.next().and_then(|value| value.to_str().ok());
    if let Some(context) = context.filter(|text| text.len() <= 128 && contexts.next().is_none()) {
        span.record(spans::TRACEPARENT, context);
    }
}

/// On MCP: where a client learns how to get what the request lacks (RFC 9728 §5.1). Elsewhere the
/// outermost layer says what it lacks.
fn mcp_challenge(request: &Request) -> Option<HeaderValue> {
    if !is_mcp(request.uri().path()) {
        return None;
    }
    let metadata = protected_resource(request.extensions())?;
    let text = format!("Bearer realm=\"pinfold\", resource_metadata=\"{metadata}\"");
    HeaderValue::try_from(text).ok()
}

/// Where a request came in, and from which address.
fn whence(request: &Request) -> (Surface, Option<IpAddr>) {
    match request.extensions().get::<Peer>() {
        Some(Peer::Tcp { address, .. }) if is_mcp(request.uri().path()) => {
            (Surface::Mcp, Some(address.ip()))
        }
        Some(Peer::Unix(_)) if is_mcp(request.uri().path()) => (Surface::McpStdio, None),
        Some(Peer::Tcp { address, .. }) if request.headers().contains_key(header::UPGRADE) => {
            (Surface::WebSocket, Some(address.ip()))
        }
        Some(Peer::Tcp { address, .. }) => (Surface::Http, Some(address.ip())),
        Some(Peer::Workspace(_)) => (Surface::Inside, None),
        Some(Peer::Unix(_)) | None => (Surface::Unix, None),
    }
}

fn identify(access: &Access, request: &Request, ticket: Option<&str>) -> Result<Caller> {
    let peer = request.extensions().get::<Peer>().copied();
    let peer = peer.ok_or_else(|| unauthenticated("a connection of no known kind"))?;
    let (surface, _) = whence(request);
    let cookie = match ticket {
        // A browser sends its cookie along wherever it goes; a ticket is shown on purpose.
        Some(_) => None,
        None => by_cookie(access, request, surface)?,
    };
    let mut caller = match (ticket, bearer(request)?, peer) {
        (None, Some(_), _) if cookie.is_some() => return Err(unauthenticated("two credentials")),
        (None, None, _) if let Some(browser) = cookie => Caller::new(browser, surface),
        (Some(_), Some(_), _) => return Err(unauthenticated("two credentials")),
        (Some(ticket), None, _) => {
            let made_for = access.redeem_ticket(ticket, origin(request.headers())?)?;
            let opened = Caller::new(made_for.principal().clone(), surface);
            made_for.session().map_or(opened.clone(), |session| opened.in_session(session))
        }
        (None, Some(presented), _) => {
            Caller::new(access.authenticate_bearer(presented, surface)?, surface)
        }
        (None, None, Peer::Unix(credentials)) => {
            Caller::new(access.authenticate_peer(credentials)?, surface)
        }
        (None, None, Peer::Tcp { .. } | Peer::Workspace(_)) => {
            return Err(unauthenticated("no credential"));
        }
    };
    // A workspace's token is good for nothing on another's channel.
    if let Peer::Workspace(workspace) = peer
        && caller.principal().kind() != PrincipalKind::Workspace(workspace)
    {
        return Err(unauthenticated("another workspace's token"));
    }
    caller = asking(caller, request);
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

/// Whom the cookie of a signed-in browser stands for. Pages of ours may do with it what they like;
/// whoever names no page, what changes nothing; other pages, nothing (F-06).
///
/// # Errors
/// When there is a cookie, and it may not be used so or does not stand.
fn by_cookie(access: &Access, request: &Request, surface: Surface) -> Result<Option<Principal>> {
    let Some(called) = request.extensions().get::<Called>() else { return Ok(None) };
    let Some(presented) = find_cookie(request.headers(), &called.origin)? else { return Ok(None) };
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let looks = !upgrade && matches!(*request.method(), Method::GET | Method::HEAD);
    let trusted = match called.page {
        Page::Own => true,
        Page::None => looks,
        Page::Other => false,
    };
    if !trusted {
        return Err(Error::new(
            ErrorCode::Forbidden,
            "a browser's cookie counts for pages of this server alone",
        )
        .hint("programs send `Authorization: Bearer TOKEN`; pinfold token create makes one"));
    }
    access.authenticate_bearer(presented, surface).map(Some)
}

/// The person behind a signed-in browser that asks for one of our own pages.
///
/// # Errors
/// As for a call with a cookie.
pub(crate) fn browser(access: &Access, request: &Request) -> Result<Option<Caller>> {
    let Some(principal) = by_cookie(access, request, Surface::Http)? else { return Ok(None) };
    Ok(Some(asking(Caller::new(principal, Surface::Http), request)))
}

/// The caller of this request, from where it came.
fn asking(mut caller: Caller, request: &Request) -> Caller {
    if let Some(id) = request.extensions().get::<RequestId>() {
        caller = caller.with_request(*id);
    }
    if let Some(Peer::Tcp { address, .. }) = request.extensions().get::<Peer>() {
        caller = caller.from_peer(address.ip());
    }
    caller
}

/// The page that a request names. It has passed the gate, so there is one at most.
pub(crate) fn origin(headers: &HeaderMap) -> Result<Option<&str>> {
    let text = headers.get(header::ORIGIN).map(HeaderValue::to_str).transpose();
    text.map_err(|_| unauthenticated("an origin that is not text"))
}

/// Takes `ticket=` out of the query of a request for a WebSocket, so that no handler, log or error
/// sees it. Anywhere else it is a query like any other.
fn take_ticket(request: &mut Request) -> Result<Option<String>> {
    if !request.headers().contains_key(header::UPGRADE) || is_mcp(request.uri().path()) {
        return Ok(None);
    }
    let Some(query) = request.uri().query() else { return Ok(None) };
    let (mut ticket, mut rest) = (None, Vec::new());
    for pair in query.split('&') {
        match pair.strip_prefix("ticket=") {
            Some(_) if ticket.is_some() => return Err(unauthenticated("two tickets")),
            Some(text) => ticket = Some(text.to_owned()),
            None => rest.push(pair),
        }
    }
    if ticket.is_some() {
        let path = request.uri().path();
        let target =
            if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(target.parse().map_err(Error::internal)?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(Error::internal)?;
    }
    Ok(ticket)
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
