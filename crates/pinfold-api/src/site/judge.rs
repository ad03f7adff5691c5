//! What the headers of a request say about where it is from and where it thinks it goes.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use pinfold_types::{
    Error, ErrorCode, Result,
    config::{Host, Origin, split_port},
    name::excerpt,
};

use super::{Called, Page, Site, is_mcp};
use crate::listen::Peer;

/// Fetch Metadata (W3C): how the page that sends a request stands to the server.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A request that is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Goes on; a page of this configured origin may read the answer.
    Pass { allowed: Option<HeaderValue>, called: Option<Called> },
    /// A browser asks whether a page of this configured origin may send something.
    Preflight { allowed: HeaderValue },
}

impl Verdict {
    /// The configured origin that asks.
    pub(super) fn allowed(self) -> Option<HeaderValue> {
        match self {
            Self::Pass { allowed, .. } => allowed,
            Self::Preflight { allowed } => Some(allowed),
        }
    }
}

/// How the page that sends a request stands to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// The request names no page.
    None,
    /// A page of ours.
    Same,
    /// A page of an origin that the configuration names.
    Configured,
    /// Any other.
    Foreign,
}

/// Judges a request's target, host, origin and Fetch Metadata.
pub(super) fn judge<B>(
    site: &Site,
    peer: Peer,
    local: Option<IpAddr>,
    request: &http::Request<B>,
) -> Result<Verdict> {
    let headers = request.headers();
    let Peer::Tcp { tls, .. } = peer else { return on_the_unix_socket(headers) };
    let (host, port) = called(request.uri(), headers)?;
    if !site.answers_as(&host, local) {
        return Err(Error::new(
            ErrorCode::Forbidden,
            format!("this server does not answer as {:?}", excerpt(&host.to_string())),
        )
        .hint("a name that is meant to be its own belongs into server.hosts"));
    }
    let own = site.outside(Origin::new(tls, host.clone(), port), &host, port);
    let relation = relation(site, headers, &own);
    let allowed = match relation {
        Relation::Configured => headers.get(header::ORIGIN).cloned(),
        _ => None,
    };
    let method = request.method();
    if method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return match allowed {
            Some(allowed) => Ok(Verdict::Preflight { allowed }),
            None => Err(foreign()),
        };
    }
    let upgrade = headers.contains_key(header::UPGRADE);
    // MCP asks for the origin's check on every request.
    let acts = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        || is_mcp(request.uri().path());
    if (acts || upgrade) && !trusted(relation, headers) {
        return Err(foreign());
    }
    // A cookie comes from a browser, and a browser says which page opens a WebSocket.
    if upgrade && relation == Relation::None && headers.contains_key(header::COOKIE) {
        return Err(Error::new(ErrorCode::Forbidden, "a WebSocket with a cookie needs an Origin"));
    }
    let page = page(relation, headers);
    Ok(Verdict::Pass { allowed, called: Some(Called { origin: own, page }) })
}

/// Whether all that a browser says of the page is this word; it may say nothing.
fn only(headers: &HeaderMap, word: &str) -> bool {
    headers.get_all(FETCH_SITE).iter().all(|value| value == word)
}

/// Whose page sends this. What a person types or follows from elsewhere than a page says `none`.
fn page(relation: Relation, headers: &HeaderMap) -> Page {
    match relation {
        Relation::None if only(headers, "none") => Page::None,
        Relation::None | Relation::Same if only(headers, "same-origin") => Page::Own,
        _ => Page::Other,
    }
}

/// No page has business on the unix socket, whose callers are the server's owner: a browser can
/// only come through a proxy that somebody put there.
fn on_the_unix_socket(headers: &HeaderMap) -> Result<Verdict> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key(FETCH_SITE) {
        return Err(Error::new(ErrorCode::Forbidden, "browsers are not let in here")
            .hint("the unix socket is for commands; a proxy for browsers belongs before TCP"));
    }
    Ok(Verdict::Pass { allowed: None, called: None })
}

/// Host and port as the request gives them (RFC 9112 §3.2): exactly one Host, and no other name in
/// the target.
fn called(uri: &Uri, headers: &HeaderMap) -> Result<(Host, Option<u16>)> {
    let bad = |why: &str| Err(Error::new(ErrorCode::InvalidArgument, why));
    let mut given = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return bad("a request needs exactly one Host header");
    };
    let parse = |text: &str| {
        let (host, port) = split_port(text)?;
        Some((host.parse::<Host>().ok()?, port))
    };
    let Some(called) = value.to_str().ok().and_then(parse) else {
        return bad("the Host header is not a host with an optional port");
    };
    match uri.authority().map(|authority| parse(authority.as_str())) {
        Some(target) if target.as_ref() != Some(&called) => {
            bad("the Host header and the request's target name different hosts")
        }
        _ => Ok(called),
    }
}

fn relation(site: &Site, headers: &HeaderMap, own: &Origin) -> Relation {
    let mut given = headers.get_all(header::ORIGIN).iter();
    let value = match (given.next(), given.next()) {
        (None, _) => return Relation::None,
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Relation::Foreign,
    };
    // `null` (sandboxed frames, files, redirects) is nobody's origin.
    match value.to_str().ok().and_then(|text| text.parse::<Origin>().ok()) {
        Some(origin) if origin == *own => Relation::Same,
        Some(origin) if site.origins.contains(&origin) => Relation::Configured,
        _ => Relation::Foreign,
    }
}

/// Whether a write or a WebSocket may come from there. Programs name no page and have no Fetch
/// Metadata; a browser that names a page of ours must not say otherwise of it in the same breath.
fn trusted(relation: Relation, headers: &HeaderMap) -> bool {
    match relation {
        Relation::Configured => true,
        Relation::Same | Relation::None => only(headers, "same-origin"),
        Relation::Foreign => false,
    }
}

fn foreign() -> Error {
    Error::new(ErrorCode::Forbidden, "pages of this origin may not do this here")
        .hint("an origin that may is named, exactly, in server.origins")
}
