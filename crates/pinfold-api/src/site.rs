//! The gate in front of every route: is this request meant for this server, and may the page that
//! sends it, if a page does?
//!
//! It knows nothing of credentials. It refuses names that are not the server's (DNS rebinding),
//! writes and `WebSockets` from pages of other origins (cross-site requests, WebSocket hijacking),
//! and any page at all on the unix socket. Pages of origins that the configuration names may read
//! answers (the Fetch standard's CORS protocol), never with cookies.

mod headers;
mod health;
mod judge;
mod resource;
mod terminals;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pinfold_types::{
    Error,
    config::{Config, Host, Origin, StreamsConfig, TerminalsConfig},
};
use tokio_util::sync::CancellationToken;

use self::judge::{Verdict, judge};
pub(crate) use self::{
    headers::secure,
    resource::{CalledAs, is_mcp, protected_resource},
    terminals::Terminals,
};
use crate::{listen::Peer, reply::Failure, streams::bounds::Bounds};

/// Under which names, and to which pages, a server answers over TCP.
#[derive(Clone, Debug, Default)]
pub struct Site {
    origins: BTreeSet<Origin>,
    hosts: BTreeSet<Host>,
    streams: StreamsConfig,
    terminals: TerminalsConfig,
    stop: CancellationToken,
}

/// Our own end of a TCP connection, in the extensions of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local(pub(crate) SocketAddr);

impl Site {
    /// The site of this configuration, which is listened for on these addresses.
    pub fn new(config: &Config, addresses: &[SocketAddr]) -> Self {
        let listen = addresses
            .iter()
            .map(|address| address.ip().to_canonical())
            .filter(|address| !address.is_unspecified())
            .map(Host::Address);
        Self {
            origins: config.server.origins.iter().cloned().collect(),
            hosts: config.server.hosts.iter().cloned().chain(listen).collect(),
            streams: config.streams.clone(),
            terminals: config.terminals.clone(),
            stop: CancellationToken::new(),
        }
    }

    /// The same, of a server that leaves when `stop` says so.
    pub(crate) fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// Bounds of streams.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::new(self.streams.clone())
    }

    /// Whether the server may be called so, on a connection that came to `local`. Loopback names
    /// and addresses cannot be made to mean us by somebody else's name server, and neither can the
    /// address that was in fact called.
    fn answers_as(&self, host: &Host, local: Option<IpAddr>) -> bool {
        let own = local.map(|local| Host::Address(local.to_canonical()));
        host.is_loopback() || own.as_ref() == Some(host) || self.hosts.contains(host)
    }
}

/// The layer.
pub(crate) async fn gate(
    State(site): State<Arc<Site>>,
    mut request: Request,
    next: Next,
) -> Response {
    let local = request.extensions().get::<Local>().map(|Local(address)| address.ip());
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Failure(Error::internal("a request without its connection")).into_response();
    };
    request.extensions_mut().insert(Terminals::of(&site.terminals, peer));
    if let Some(called) = CalledAs::of(&site, peer, request.headers()) {
        request.extensions_mut().insert(called);
    }
    let verdict = judge(&site, peer, local, &request);
    let mut response = match &verdict {
        Ok(Verdict::Preflight { .. }) => headers::preflight(),
        Ok(Verdict::Pass { .. }) => match health::answer(&request, site.stop.is_cancelled()) {
            Some(answer) => answer,
            None => next.run(request).await,
        },
        Err(error) => Failure(error.clone()).into_response(),
    };
    if matches!(peer, Peer::Tcp { .. }) {
        let origin = verdict.ok().and_then(Verdict::allowed);
        headers::cross_origin(response.headers_mut(), origin);
    }
    response
}
