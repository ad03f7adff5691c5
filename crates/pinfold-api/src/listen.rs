//! Listening: the unix socket, TCP, bounds of connections, a graceful end.
//!
//! Every connection says who is at its other end ([`Peer`]) in the extensions of each of its
//! requests; nothing here decides what a caller may do. Whatever is slow or hostile about a
//! connection (its handshake, its heads, how many there are) is bounded here, off the loops that
//! accept, so that it costs nobody else anything.

mod connection;
mod inside;
mod peer;
mod places;
mod tcp;

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn_with_state};
use futures_util::FutureExt;
use pinfold_auth::PeerCredentials;
use pinfold_control::Access;
use pinfold_types::{Error, Result};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    connection::{Line, refuse, serve},
    places::{Place, Places, full},
};
pub use self::{
    inside::{Doorstep, Inside},
    peer::Peer,
    tcp::Tcp,
};
use crate::{
    layers,
    metrics::Metrics,
    site,
    site::Site,
    upgrade::{StreamGuard, Streams},
};

/// Callers that are being refused at once; more are cut off.
const REFUSALS: usize = 64;
/// How long calls under way may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a loop waits when there is nothing left to accept with: out of descriptors, most
/// likely, so some connections have to end first.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// How many connections are open, for a server that leaves when idle.
#[derive(Clone, Debug)]
pub struct Activity(Arc<watch::Sender<usize>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Activity {
    /// Returns when no connection has been open for `time`.
    pub async fn idle_for(&self, time: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // It cannot fail: the sender lives as long as `self`.
            drop(count.wait_for(|open| *open == 0).await);
            let busy = tokio::time::timeout(time, count.wait_for(|open| *open > 0)).await;
            if busy.is_err() {
                return;
            }
        }
    }

    fn begin(&self) -> Open {
        self.0.send_modify(|open| *open += 1);
        Open(Arc::clone(&self.0))
    }
}

/// One open connection.
#[derive(Debug)]
struct Open(Arc<watch::Sender<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// What a connection holds until it, or the stream that it became, ends.
#[derive(Debug)]
struct Held {
    _place: Place,
    _open: Open,
}

/// Serves `router` on `listener` and `tcp` until `stop`.
#[derive(Debug)]
pub struct Server {
    /// The unix socket.
    pub listener: UnixListener,
    /// TCP addresses.
    pub tcp: Vec<Tcp>,
    /// Programs inside workspaces.
    pub inside: Inside,
    /// Under which names, and to which pages, it answers over TCP.
    pub site: Site,
    /// The routes.
    pub router: Router,
    /// Recognises callers.
    pub access: Access,
    /// Counts requests.
    pub metrics: Metrics,
    /// Most connections at once: of the unix socket, and as many again of all TCP addresses, so
    /// that strangers cannot take the owner's place.
    pub max_connections: usize,
    /// Counts connections.
    pub activity: Activity,
    /// Ends the server.
    pub stop: CancellationToken,
}

/// What all loops share.
#[derive(Clone, Debug)]
struct Shared {
    router: Router,
    metrics: Metrics,
    activity: Activity,
    streams: Streams,
    calls: TaskTracker,
    refusals: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Shared {
    /// What a connection of this place holds, where its streams find it.
    fn hold(&self, place: Place) -> StreamGuard {
        let held = Held { _place: place, _open: self.activity.begin() };
        StreamGuard::new(self.streams.clone(), Arc::new(held))
    }
}

impl Server {
    /// Runs until stopped and calls under way have ended. Streams go on until the
    /// [`Streams`] that come back are ended, so that the node can be closed before them: a
    /// throw-away workspace then outlives the server, and its client finds it again.
    pub async fn run(self) -> Streams {
        let Self {
            listener,
            tcp,
            inside,
            site,
            router,
            access,
            metrics,
            max_connections,
            activity,
            stop,
        } = self;
        let streams = Streams::new(site.bounds());
        let site = Arc::new(site.until(stop.clone()));
        // Outermost last: every answer, of whatever route, is framed; every request has passed
        // the gate.
        let router = router
            .layer(from_fn_with_state(site, site::gate))
            .layer(from_fn_with_state(metrics.clone(), layers::frame));
        let shared = Shared {
            router,
            metrics,
            activity,
            streams,
            calls: TaskTracker::new(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            stop,
        };
        let strangers = Places::new(max_connections);
        let loops = TaskTracker::new();
        for socket in tcp {
            loops.spawn(socket.accept(shared.clone(), strangers.clone()));
        }
        loops.spawn(inside.accept(shared.clone()));
        loops.close();
        let unix = Unix { access, places: Places::new(max_connections), shared };
        unix.accept(&listener).await;
        drop(listener);
        loops.wait().await;
        let Shared { calls, streams, .. } = unix.shared;
        calls.close();
        if tokio::time::timeout(DRAIN, calls.wait()).await.is_err() {
            tracing::warn!(left = calls.len(), "some calls did not end in time");
        }
        streams
    }
}

/// The loop of the unix socket, whose callers the kernel names.
struct Unix {
    access: Access,
    places: Places,
    shared: Shared,
}

impl Unix {
    async fn accept(&self, listener: &UnixListener) {
        loop {
            let stream = tokio::select! {
                () = self.shared.stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _address)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(EXHAUSTED).await;
                        continue;
                    }
                },
            };
            if let Some((stream, error)) = self.admit(stream, self.shared.stop.clone(), true) {
                tracing::warn!(code = %error.code, cause = error.internal, "{error}");
                if let Ok(permit) = Arc::clone(&self.shared.refusals).try_acquire_owned() {
                    self.shared.calls.spawn(refuse(
                        stream,
                        error,
                        self.shared.metrics.clone(),
                        permit,
                    ));
                }
            }
        }
        // Whoever connected before the socket's name was taken away is still answered.
        while let Some(Ok((stream, _address))) = listener.accept().now_or_never() {
            let _refused = self.admit(stream, CancellationToken::new(), false);
        }
    }

    /// Serves a caller that is let in; gives back one that is not, and why.
    fn admit(
        &self,
        stream: UnixStream,
        stop: CancellationToken,
        keep_alive: bool,
    ) -> Option<(UnixStream, Error)> {
        let admitted = self.identify(&stream).and_then(|known| {
            self.places.take().map(|place| (known, place)).ok_or_else(|| full(&self.places))
        });
        match admitted {
            Ok((credentials, place)) => {
                let line = Line {
                    peer: Peer::Unix(credentials),
                    local: None,
                    guard: self.shared.hold(place),
                };
                let router = self.shared.router.clone();
                self.shared.calls.spawn(serve(stream, router, line, stop, keep_alive));
                None
            }
            Err(error) => Some((stream, error)),
        }
    }

    /// Nobody but the owner and root is let in at all; each request is authenticated again.
    fn identify(&self, stream: &UnixStream) -> Result<PeerCredentials> {
        let credentials = stream.peer_cred().map_err(Error::internal)?;
        let credentials = PeerCredentials { uid: credentials.uid() };
        self.access.authenticate_peer(credentials)?;
        Ok(credentials)
    }
}
