//! One connection: requests one after the other, within bounds.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pinfold_types::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::Peer;
use crate::{site::Local, upgrade::StreamGuard};

/// A request's head must be complete this soon.
const HEAD_WAIT: Duration = Duration::from_secs(15);
/// Most bytes of a request's head, and most that is read of a body at once: an upload travels on in
/// pieces of this size.
const READ_BYTES: usize = 256 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How long a refusal may take.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);

/// What every request of a connection carries.
pub(super) struct Line {
    pub(super) peer: Peer,
    /// Our own end, where it has an address.
    pub(super) local: Option<SocketAddr>,
    pub(super) guard: StreamGuard,
}

/// Serves a connection to its end, or after `stop` to the end of the call under way.
pub(super) async fn serve<S>(
    stream: S,
    router: Router,
    line: Line,
    stop: CancellationToken,
    keep_alive: bool,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Line { peer, local, guard } = line;
    let service = service_fn(move |mut request: Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(peer);
        extensions.insert(guard.clone());
        if let Some(local) = local {
            extensions.insert(Local(local));
        }
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
pub(super) async fn refuse<S>(
    stream: S,
    error: Error,
    metrics: crate::Metrics,
    permit: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let router = crate::routes::refusing(error, metrics);
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
