//! From a request to a WebSocket, after the grant and before the first frame.

use std::{any::Any, future::Future, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use pinfold_auth::Caller;
use pinfold_types::{Error, ErrorCode, PrincipalId, Result};
use tokio::{
    net::{TcpStream, UnixStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    metrics::Metrics,
    site::Terminals,
    streams::bounds::{Bounds, Counted, End, Pulse},
    ws::{BoxRead, BoxWrite, Receiver, Role, Sender, accept_key},
};

/// What the kernel may hold for a client: two large messages and what they cost it beside.
const SEND_BYTES: usize = 512 << 10;
/// How long streams may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// All streams of a server.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    tasks: TaskTracker,
    end: CancellationToken,
    bounds: Bounds,
}

impl Streams {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Closes every stream with code 1012 (the server restarts, a client may come back).
    pub async fn end(&self) {
        self.tasks.close();
        self.end.cancel();
        if tokio::time::timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "some streams did not close in time");
        }
    }
}

/// What a request needs to become a stream: where it is counted, and what it goes on holding.
#[derive(Clone, Debug)]
pub(crate) struct StreamGuard {
    streams: Streams,
    credential: CancellationToken,
    held: Arc<dyn Any + Send + Sync>,
}

impl StreamGuard {
    pub(crate) fn new(streams: Streams, held: Arc<dyn Any + Send + Sync>) -> Self {
        Self { streams, credential: CancellationToken::new(), held }
    }

    /// Counts one more stream of a principal, or refuses.
    pub(crate) fn count(&self, of: PrincipalId) -> Result<Counted> {
        self.streams.bounds.count(of)
    }

    /// Runs a stream that the server waits for when it ends. It is given what ends it: the server,
    /// the bounds, its credential; and what it goes on holding.
    pub(crate) fn spawn<F>(
        self,
        stream: impl FnOnce(End, Bounds, CancellationToken, Arc<dyn Any + Send + Sync>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { streams, credential, held } = self;
        let end = End::with(&streams.end);
        let running = stream(end, streams.bounds.clone(), credential, held);
        // What the stream calls belongs to the request that opened it.
        streams.tasks.spawn(running.in_current_span());
    }

    /// The stream ends also when this is cancelled.
    pub(crate) fn ends_with(&mut self, ended: CancellationToken) {
        self.credential = ended;
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    /// The stream has to end.
    pub(crate) end: End,
    /// Whether the peer may have a terminal.
    pub(crate) terminals: Terminals,
}

/// A request that asks for a WebSocket, checked.
#[derive(Debug)]
pub(crate) struct Upgrade {
    accept: String,
    on: OnUpgrade,
    guard: StreamGuard,
    counted: Counted,
    terminals: Terminals,
    metrics: Metrics,
}

impl Upgrade {
    /// Checks the handshake (RFC 6455 §4.2.1).
    pub(crate) fn new(mut parts: Parts) -> Result<Self> {
        let has = |name: header::HeaderName, word: &str| {
            parts.headers.get_all(name).iter().any(|value| {
                value.to_str().is_ok_and(|text| {
                    text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
                })
            })
        };
        let bad = |why: &str| {
            Err(Error::new(ErrorCode::InvalidArgument, format!("this is a WebSocket: {why}"))
                .hint("open it with a WebSocket client"))
        };
        if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
            return bad("the request does not ask for an upgrade");
        }
        // HEAD is answered as GET is, everywhere else.
        if parts.method != Method::GET {
            return bad("the method must be GET");
        }
        if !has(header::SEC_WEBSOCKET_VERSION, "13") {
            return bad("Sec-WebSocket-Version must be 13");
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
        let Some(key) = key else { return bad("Sec-WebSocket-Key is missing or malformed") };
        let accept = accept_key(key.as_bytes());
        let missing = || Error::internal("the connection cannot be upgraded");
        let on = parts.extensions.remove::<OnUpgrade>().ok_or_else(missing)?;
        let guard = parts.extensions.remove::<StreamGuard>().ok_or_else(missing)?;
        let terminals = parts.extensions.get::<Terminals>().copied().ok_or_else(missing)?;
        let caller = parts.extensions.get::<Caller>().ok_or_else(missing)?;
        let counted = guard.count(caller.principal().id())?;
        let metrics = parts.extensions.remove::<Metrics>().unwrap_or_default();
        Ok(Self { accept, on, guard, counted, terminals, metrics })
    }

    /// Whether the peer may have a terminal.
    pub(crate) const fn terminals(&self) -> Terminals {
        self.terminals
    }

    /// Answers 101 and runs `stream` when the connection has become a WebSocket.
    pub(crate) fn run<F>(self, stream: impl FnOnce(Socket) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { accept, on, guard, counted, terminals, metrics } = self;
        let open = metrics.stream();
        guard.spawn(move |end, bounds, credential, held| async move {
            match on.await {
                Ok(upgraded) => {
                    let begun = Instant::now();
                    let pulse = Pulse::new(begun);
                    let (mut sender, mut receiver) = split(upgraded);
                    sender.watch(pulse.clone());
                    receiver.watch(pulse.clone());
                    let running = stream(Socket { sender, receiver, end: end.clone(), terminals });
                    let bounded = within(running, &end, bounds.reached(begun, &pulse));
                    tokio::select! {
                        () = bounded => {}
                        // Whoever it belonged to is nobody any more: not even a goodbye.
                        () = credential.cancelled() => {
                            tracing::info!("a stream's credential ended");
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "an upgrade failed"),
            }
            drop((held, counted, open));
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        match HeaderValue::try_from(accept) {
            Ok(accept) => headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept),
            Err(error) => return crate::reply::Failure(Error::internal(error)).into_response(),
        };
        response
    }
}

/// Runs a stream until it ends, or a bound is reached: it then says so and has a moment left.
async fn within(
    running: impl Future<Output = ()>,
    end: &End,
    bound: impl Future<Output = (u16, String)>,
) {
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => {}
        reached = bound => {
            tracing::debug!(code = reached.0, why = reached.1, "a stream reached a bound");
            end.because(reached);
            let _slow = tokio::time::timeout(GOODBYE, running).await;
        }
    }
}

/// The two halves, without a lock between them where the connection is a plain socket.
fn split(upgraded: Upgraded) -> (Sender, Receiver) {
    let (read, write, already): (BoxRead, BoxWrite, _) =
        match upgraded.downcast::<TokioIo<UnixStream>>() {
            Ok(parts) => {
                let socket = parts.io.into_inner();
                // Less than it asks for, or the usual size, is slower and nothing else.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES);
                let (read, write) = socket.into_split();
                (Box::pin(read), Box::pin(write), parts.read_buf)
            }
            Err(other) => match other.downcast::<TokioIo<TcpStream>>() {
                Ok(parts) => {
                    let (read, write) = parts.io.into_inner().into_split();
                    (Box::pin(read), Box::pin(write), parts.read_buf)
                }
                Err(other) => {
                    let (read, write) = tokio::io::split(TokioIo::new(other));
                    (Box::pin(read), Box::pin(write), bytes::Bytes::new())
                }
            },
        };
    (Sender::new(write, Role::Server), Receiver::new(read, Role::Server, &already))
}
