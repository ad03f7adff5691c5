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
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pinfold_auth::Surface;
use pinfold_control::{Node, Service};
use pinfold_types::{
    Error, ErrorCode, RequestId, Result,
    config::{Config, Host, Origin, StreamsConfig, TerminalsConfig},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    headers::secure,
    resource::{is_mcp, protected_resource},
    terminals::Terminals,
};
use self::{
    health::Health,
    judge::{Verdict, judge},
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
    watch: Watch,
}

/// Who is told of what the gate decides, and knows whether the server can work.
pub trait Watchman: Send + Sync {
    /// Whether changes can be made; why not.
    fn ready(&self) -> Result<()>;
    /// A request was turned away.
    fn refused(&self, surface: Surface, peer: IpAddr, request: Option<RequestId>, error: &Error);
}

/// One of them, or nobody.
#[derive(Clone, Default)]
struct Watch(Option<Arc<dyn Watchman>>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.is_some()).finish()
    }
}

impl<N: Node> Watchman for Service<N> {
    fn ready(&self) -> Result<()> {
        Self::ready(self)
    }

    fn refused(&self, surface: Surface, peer: IpAddr, request: Option<RequestId>, error: &Error) {
        self.turned_away(surface, Some(peer), request, error);
    }
}

/// As what a request over TCP calls us, and which page it is from; in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    /// Our origin, as a browser sees it.
    pub(crate) origin: Origin,
    /// Whose page sends it.
    pub(crate) page: Page,
}

/// Whose page sends a request, as the browser says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Ours.
    Own,
    /// None: a program, or a person who typed an address.
    None,
    /// Somebody else's.
    Other,
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
            watch: Watch::default(),
        }
    }

    /// The same, with somebody to tell.
    #[must_use]
    pub fn watched_by(self, watchman: impl Watchman + 'static) -> Self {
        Self { watch: Watch(Some(Arc::new(watchman))), ..self }
    }

    /// How the server is, for `/readyz`.
    fn health(&self) -> Health {
        if self.stop.is_cancelled() {
            return Health::Leaving;
        }
        match self.watch.0.as_ref().map(|watchman| watchman.ready()) {
            Some(Err(error)) => {
                tracing::debug!(%error, "not ready");
                Health::Broken
            }
            Some(Ok(())) | None => Health::Ready,
        }
    }

    fn tell(&self, peer: Peer, request: &Request, error: &Error) {
        let (Some(watchman), Peer::Tcp { address, .. }) = (&self.watch.0, peer) else { return };
        if error.code == ErrorCode::Forbidden {
            let upgrade = request.headers().contains_key(http::header::UPGRADE);
            let surface = match upgrade {
                _ if is_mcp(request.uri().path()) => Surface::Mcp,
                true => Surface::WebSocket,
                false => Surface::Http,
            };
            let id = request.extensions().get::<RequestId>().copied();
            watchman.refused(surface, address.ip(), id, error);
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

    /// Our origin as a browser sees it. Where a proxy on this machine ends TLS, the configuration
    /// names that origin; nothing that the request says does.
    fn outside(&self, inside: Origin, host: &Host, port: Option<u16>) -> Origin {
        let outside = Origin::new(true, host.clone(), port);
        if self.origins.contains(&outside) { outside } else { inside }
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
    let verdict = judge(&site, peer, local, &request);
    if let Ok(Verdict::Pass { called: Some(called), .. }) = &verdict {
        request.extensions_mut().insert(called.clone());
    }
    let mut response = match &verdict {
        Ok(Verdict::Preflight { .. }) => headers::preflight(),
        Ok(Verdict::Pass { .. }) => match health::answer(&request, || site.health()) {
            Some(answer) => answer,
            None => next.run(request).await,
        },
        Err(error) => {
            site.tell(peer, &request, error);
            Failure(error.clone()).into_response()
        }
    };
    if matches!(peer, Peer::Tcp { .. }) {
        let origin = verdict.ok().and_then(Verdict::allowed);
        headers::cross_origin(response.headers_mut(), origin);
    }
    response
}
