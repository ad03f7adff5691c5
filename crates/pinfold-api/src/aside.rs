//! Listeners beside the API, for tools of the operator: few connections, short heads, bounded
//! time, and no page of a browser behind them.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pinfold_types::config::{Host, split_port};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most readers at once.
const CONNECTIONS: usize = 16;
/// Longest that one connection may last, answer and silence together.
const CONNECTION: Duration = Duration::from_mins(2);
/// A request's head must be complete this soon.
const HEAD_WAIT: Duration = Duration::from_secs(5);

/// The type of a short text.
pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;
/// Answers one request.
pub(crate) type Answer = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// A bound listener, and who may connect.
pub(crate) struct Aside {
    pub(crate) listener: TcpListener,
    /// What is served, for the log.
    pub(crate) what: &'static str,
    pub(crate) lets_in: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    pub(crate) answer: Answer,
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Aside {
    /// Answers until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { listener, what, lets_in, answer } = self;
        let limit = Arc::new(Semaphore::new(CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, what, "a reader could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            if !lets_in(peer.ip()) {
                tracing::warn!(peer = %peer.ip(), what, "this is not for this address");
                continue;
            }
            // One reader too many is cut off; it comes again.
            let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
            let (answer, stop) = (Arc::clone(&answer), stop.clone());
            connections.spawn(async move {
                let serving = serve(stream, peer, answer);
                tokio::select! {
                    () = stop.cancelled() => {}
                    _slow = tokio::time::timeout(CONNECTION, serving) => {}
                }
                drop(permit);
            });
        }
        connections.close();
        connections.wait().await;
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, answer: Answer) {
    let service = service_fn(move |request: Request<Incoming>| {
        let refused = foreign(request.headers(), peer.ip());
        let answering = refused.is_none().then(|| answer(request));
        async move {
            let answered = match (refused, answering) {
                (Some(why), _) => say(StatusCode::FORBIDDEN, why, PLAIN),
                (None, Some(answering)) => answering.await,
                (None, None) => say(StatusCode::INTERNAL_SERVER_ERROR, "", PLAIN),
            };
            Ok::<_, Infallible>(answered)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(16 << 10)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a reader broke off");
    }
}

/// Why a request is a page's and not a tool's. On loopback a name that is not of loopback is
/// somebody else's that leads here (DNS rebinding), and what a browser says of where a request
/// comes from is believed: no page has business here.
fn foreign(headers: &HeaderMap, peer: IpAddr) -> Option<&'static str> {
    let sent = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key(header::ORIGIN)
        || sent("sec-fetch-site").is_some_and(|site| !matches!(site, "none" | "same-origin"))
    {
        return Some("this is for no page of another origin\n");
    }
    if !peer.to_canonical().is_loopback() {
        return None;
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok());
    let ours = host.and_then(split_port).and_then(|(host, _port)| host.parse::<Host>().ok());
    let ours = ours.is_some_and(|host| host.is_loopback() || matches!(host, Host::Address(_)));
    if ours && hosts.next().is_none() {
        return None;
    }
    Some("this is not called by that name: use localhost or the address\n")
}

/// An answer.
pub(crate) fn say(
    status: StatusCode,
    body: impl Into<Bytes>,
    kind: &'static str,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_and_pages_of_others_are_foreign() {
        let of = |pairs: &[(&'static str, &'static str)], peer: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            foreign(&headers, peer.parse().expect("an address")).is_some()
        };
        for (host, refused) in [
            ("localhost:9090", false),
            ("pinfold.localhost:9090", false),
            ("127.0.0.1:9090", false),
            ("[::1]:9090", false),
            ("192.0.2.1:9090", false),
            ("rebound.example:9090", true),
            ("localhost.example", true),
            ("", true),
        ] {
            assert_eq!(of(&[("host", host)], "127.0.0.1"), refused, "{host}");
        }
        assert!(of(&[], "127.0.0.1"), "no name");
        assert!(of(&[("host", "localhost"), ("host", "a.example")], "::1"), "two names");
        // From elsewhere it is called by whatever name the operator gave it.
        assert!(!of(&[("host", "metrics.example")], "192.0.2.7"));
        let from = |name, value| of(&[("host", "localhost"), (name, value)], "127.0.0.1");
        assert!(from("origin", "http://evil.example"));
        assert!(from("sec-fetch-site", "cross-site"));
        assert!(!from("sec-fetch-site", "none"));
    }
}
