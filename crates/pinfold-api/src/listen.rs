//! The unix socket: peer credentials, bounds of connections, graceful end.

use std::{sync::Arc, time::Duration};

use axum::Router;
use futures_util::FutureExt;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pinfold_auth::PeerCredentials;
use pinfold_control::Access;
use pinfold_types::{Error, ErrorCode, Result};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    authenticate::Peer,
    upgrade::{StreamGuard, Streams},
};

/// A request's head must be complete this soon.
const HEAD_WAIT: Duration = Duration::from_secs(15);
/// Most bytes of a request's head, and most that is read of a body at once: an upload travels on in
/// pieces of this size.
const READ_BYTES: usize = 256 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Callers that are being refused at once; more are cut off.
const REFUSALS: usize = 64;
/// How long a refusal may take.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);
/// How long calls under way may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

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
    _permit: OwnedSemaphorePermit,
    _open: Open,
}

/// Serves `router` on `listener` until `stop`.
#[derive(Debug)]
pub struct Server {
    /// The listening socket.
    pub listener: UnixListener,
    /// The routes.
    pub router: Router,
    /// Recognises callers.
    pub access: Access,
    /// Most connections at once.
    pub max_connections: usize,
    /// Counts connections.
    pub activity: Activity,
    /// Ends the server.
    pub stop: CancellationToken,
}

impl Server {
    /// Runs until stopped and calls under way have ended. Streams go on until the
    /// [`Streams`] that come back are ended, so that the node can be closed before them: a
    /// throw-away workspace then outlives the server, and its client finds it again.
    pub async fn run(self) -> Streams {
        let Self { listener, router, access, max_connections, activity, stop } = self;
        let limit = Arc::new(Semaphore::new(max_connections));
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let calls = TaskTracker::new();
        let streams = Streams::default();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _address)) => stream,
                    Err(error) => {
                        // Out of descriptors, most likely: let some connections end.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let principal = identify(&stream, &access);
            let admitted = principal.and_then(|peer| {
                let permit = Arc::clone(&limit).try_acquire_owned();
                permit.map(|permit| (peer, permit)).map_err(|_| full(max_connections))
            });
            match admitted {
                Ok((peer, permit)) => {
                    let held = Arc::new(Held { _permit: permit, _open: activity.begin() });
                    let guard = StreamGuard::new(streams.clone(), held);
                    let (router, stop) = (router.clone(), stop.clone());
                    calls.spawn(connection(stream, router, peer, guard, stop, true));
                }
                Err(error) => {
                    tracing::warn!(code = %error.code, cause = error.internal, "{error}");
                    if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                        calls.spawn(refuse(stream, error, permit));
                    }
                }
            }
        }
        // Whoever connected before the socket's name was taken away is still answered.
        while let Some(Ok((stream, _address))) = listener.accept().now_or_never() {
            if let Ok(peer) = identify(&stream, &access)
                && let Ok(permit) = Arc::clone(&limit).try_acquire_owned()
            {
                let held = Arc::new(Held { _permit: permit, _open: activity.begin() });
                let guard = StreamGuard::new(streams.clone(), held);
                let last = CancellationToken::new();
                calls.spawn(connection(stream, router.clone(), peer, guard, last, false));
            }
        }
        drop(listener);
        calls.close();
        if tokio::time::timeout(DRAIN, calls.wait()).await.is_err() {
            tracing::warn!(left = calls.len(), "some calls did not end in time");
        }
        streams
    }
}

fn full(max_connections: usize) -> Error {
    Error::new(
        ErrorCode::RateLimited,
        format!("the server has {max_connections} connections already"),
    )
    .hint("close some, or raise server.max_connections")
}

/// Nobody but the owner and root is let in at all; each request is authenticated again.
fn identify(stream: &UnixStream, access: &Access) -> Result<Peer> {
    let credentials = stream.peer_cred().map_err(Error::internal)?;
    let credentials = PeerCredentials { uid: credentials.uid() };
    access.authenticate_peer(credentials)?;
    Ok(Peer::Unix(credentials))
}

async fn connection(
    stream: UnixStream,
    router: Router,
    peer: Peer,
    guard: StreamGuard,
    stop: CancellationToken,
    keep_alive: bool,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(guard.clone());
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let serving = builder()
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Answers the first request of a caller that is not let in, and closes.
async fn refuse(stream: UnixStream, error: Error, permit: OwnedSemaphorePermit) {
    let router = crate::routes::refusing(error);
    let service = service_fn(move |request: Request<Incoming>| {
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let mut builder = builder();
    let serving = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service);
    // Whoever is refused gets no time to waste.
    let _ended = tokio::time::timeout(REFUSAL_WAIT, serving).await;
    drop(permit);
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(READ_BYTES)
        .max_headers(HEADERS)
        .half_close(false);
    builder
}
