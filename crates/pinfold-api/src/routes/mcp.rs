//! MCP over the API's own socket. This room only carries the messages: what they mean is
//! `pinfold-mcp`'s, which the composition puts in here.

use std::{future::Future, sync::Arc};

use axum::{Extension, Router};
use futures_util::future::BoxFuture;
use pinfold_auth::{Caller, ops};
use pinfold_control::{Node, Service};
use pinfold_types::{Error, ErrorCode};
use tokio::sync::mpsc;

use crate::{call::Call, reply::Reply, streams::mcp::carry, upgrade::Upgrade};

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

/// Lets `mcp.connect` reach what serves MCP; without, it answers `unavailable`.
pub fn with_mcp(router: Router, connect: McpConnect) -> Router {
    router.layer(Extension(connect))
}

pub(super) async fn connect<N: Node>(service: Service<N>, call: Call<ops::McpConnect>) -> Reply {
    let (grant, parts) = call.into_parts();
    let serve = parts.extensions.get::<McpConnect>().cloned();
    let caller = parts.extensions.get::<Caller>().cloned();
    let upgrade = Upgrade::new(parts)?;
    let McpConnect(serve) = serve
        .ok_or_else(|| Error::new(ErrorCode::Unavailable, "this server does not speak MCP"))?;
    let caller =
        caller.ok_or_else(|| Error::new(ErrorCode::Unauthenticated, "no credential was given"))?;
    let connected = service.connect_mcp(grant).await?;
    Ok(upgrade.run(move |socket| async move {
        carry(socket, |stream| serve(caller, stream)).await;
        drop(connected);
    }))
}
