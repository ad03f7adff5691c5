//! MCP over the API's own socket, and over HTTP. This room only carries the messages: what they
//! mean is `pinfold-mcp`'s, which the composition puts in here.

use std::{convert::Infallible, future::Future, sync::Arc};

use axum::{Extension, Router, body::Body, extract::Request};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, header};
use http_body_util::combinators::UnsyncBoxBody;
use pinfold_auth::{Caller, ops};
use pinfold_control::{ByteStream, Node, Service};
use pinfold_types::{Error, ErrorCode};
use tokio::sync::mpsc;

use crate::{body, call::Call, reply::Reply, site, streams::mcp::carry, upgrade::Upgrade};

/// Both ways of one MCP client: each item is one JSON-RPC message.
#[derive(Debug)]
pub struct McpStream {
    /// What the client sends, each at most [`pinfold_types::limits::MAX_BODY_BYTES`]; closed when
    /// it is gone.
    pub incoming: mpsc::Receiver<String>,
    /// What the client gets.
    pub outgoing: mpsc::Sender<String>,
}

/// Serves one MCP client until it is gone.
#[derive(Clone)]
pub struct McpConnect(Arc<dyn Fn(Caller, McpStream) -> BoxFuture<'static, ()> + Send + Sync>);

impl std::fmt::Debug for McpConnect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("McpConnect")
    }
}

impl McpConnect {
    /// Serves every client with `serve`.
    pub fn new<F>(serve: impl Fn(Caller, McpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(move |caller, stream| Box::pin(serve(caller, stream))))
    }
}

/// The path of MCP over HTTP.
pub(crate) const PATH: &str = "/mcp";

/// An answer of MCP over HTTP.
pub type McpAnswer = http::Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Serves requests of MCP over HTTP, each with its [`Caller`] in its extensions.
#[derive(Clone)]
pub struct McpHttp(
    Arc<dyn Fn(http::Request<ByteStream>) -> BoxFuture<'static, McpAnswer> + Send + Sync>,
);

impl std::fmt::Debug for McpHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("McpHttp")
    }
}

impl McpHttp {
    /// Serves every request with `serve`.
    pub fn new<F>(serve: impl Fn(http::Request<ByteStream>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = McpAnswer> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(serve(request))))
    }
}

/// Lets `mcp.connect` and `/mcp` reach what serves MCP; without, they answer `unavailable`.
pub fn with_mcp(router: Router, connect: McpConnect, http: McpHttp) -> Router {
    router.layer(Extension(connect)).layer(Extension(http))
}

/// Any request to `/mcp`, from a caller that has been recognised.
pub(super) async fn over_http(request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let serve = parts.extensions.get::<McpHttp>().cloned();
    let McpHttp(serve) = serve.ok_or_else(silent)?;
    let metadata = site::protected_resource(&parts.extensions);
    let body: ByteStream = Box::pin(body::stream(body));
    let mut response = serve(http::Request::from_parts(parts, body)).await.map(Body::new);
    // A challenge of the protocol's says which rights are missing; where to get them is ours.
    if let Some(challenge) = response.headers().get(header::WWW_AUTHENTICATE) {
        let whole = challenge.to_str().ok().zip(metadata).and_then(|(said, metadata)| {
            HeaderValue::try_from(format!("{said}, resource_metadata=\"{metadata}\"")).ok()
        });
        if let Some(whole) = whole {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, whole);
        }
    }
    Ok(response)
}

fn silent() -> Error {
    Error::new(ErrorCode::Unavailable, "this server does not speak MCP")
}

pub(super) async fn connect<N: Node>(service: Service<N>, call: Call<ops::McpConnect>) -> Reply {
    let (grant, parts) = call.into_parts();
    let serve = parts.extensions.get::<McpConnect>().cloned();
    let caller = parts.extensions.get::<Caller>().cloned();
    let upgrade = Upgrade::new(parts)?;
    let McpConnect(serve) = serve.ok_or_else(silent)?;
    let caller =
        caller.ok_or_else(|| Error::new(ErrorCode::Unauthenticated, "no credential was given"))?;
    let connected = service.connect_mcp(grant).await?;
    Ok(upgrade.run(move |socket| async move {
        carry(socket, |stream| serve(caller, stream)).await;
        drop(connected);
    }))
}
