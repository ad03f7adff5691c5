//! How the site is called from outside, for what tells a client where to go next.

use http::{Extensions, HeaderValue, header};
use pinfold_types::config::{Host, Origin, split_port};

use super::Site;
use crate::{listen::Peer, routes::mcp};

/// How a request called the site; in the extensions of requests over TCP that passed the gate.
#[derive(Clone, Debug)]
pub(crate) struct CalledAs(Origin);

impl CalledAs {
    /// Scheme and host as the request and the connection say; `https` where the configuration
    /// names the same host so, because a proxy before us ends TLS.
    pub(super) fn of(site: &Site, peer: Peer, headers: &http::HeaderMap) -> Option<Self> {
        let Peer::Tcp { tls, .. } = peer else { return None };
        let host = headers.get(header::HOST).map(HeaderValue::to_str)?.ok()?;
        let (host, port) = split_port(host)?;
        let host: Host = host.parse().ok()?;
        let outside = Origin::new(true, host.clone(), port);
        let tls = tls || site.origins.contains(&outside);
        Some(Self(Origin::new(tls, host, port)))
    }
}

/// Whether a request is one of MCP over HTTP.
pub(crate) fn is_mcp(path: &str) -> bool {
    path == mcp::PATH
}

/// Where the metadata of the protected resource are that `/mcp` is (RFC 9728 §3.1); nowhere on the
/// unix socket.
pub(crate) fn protected_resource(extensions: &Extensions) -> Option<String> {
    let CalledAs(origin) = extensions.get()?;
    Some(format!("{origin}/.well-known/oauth-protected-resource{}", mcp::PATH))
}
