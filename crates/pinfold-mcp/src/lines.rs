//! One client whose messages come as lines: standard input and output, carried over a WebSocket.

use std::{future::Future, io};

use pinfold_auth::{Caller, Surface};
use pinfold_control::{Node, Service};
use rmcp::{
    RoleServer,
    model::JsonRpcMessage,
    service::{RxJsonRpcMessage, TxJsonRpcMessage, serve_server},
    transport::Transport,
};
use tokio::sync::{mpsc, watch};

use crate::{handler::Handler, limits::MAX_WAITING, message};

/// Both ways of one client: each item is one JSON-RPC message.
#[derive(Debug)]
pub struct Lines {
    /// What the client sends; closed when it is gone.
    pub incoming: mpsc::Receiver<String>,
    /// What the client gets.
    pub outgoing: mpsc::Sender<String>,
}

/// Serves one client, which came in as `caller`, until it goes.
pub fn serve_lines<N: Node>(
    service: Service<N>,
    caller: &Caller,
    lines: Lines,
) -> impl Future<Output = ()> + Send + use<N> {
    let mut speaks = Caller::new(caller.principal().clone(), Surface::McpStdio);
    if let Some(address) = caller.peer() {
        speaks = speaks.from_peer(address);
    }
    if let Some(session) = caller.session() {
        speaks = speaks.in_session(session);
    }
    serve(service, speaks, lines)
}

async fn serve<N: Node>(service: Service<N>, caller: Caller, lines: Lines) {
    let transport = LineTransport { lines, waiting: watch::Sender::new(0), begun: false };
    // One that is gone before it said what it wants is no matter. What it did say is in the error,
    // and not for the log.
    if let Ok(running) = serve_server(Handler::new(service, caller), transport).await {
        if let Err(error) = running.waiting().await {
            tracing::error!(%error, "an MCP session broke");
        }
    } else {
        tracing::debug!("an MCP session did not begin");
    }
}

struct LineTransport {
    lines: Lines,
    /// Messages that the client has not taken.
    waiting: watch::Sender<usize>,
    /// A request came.
    begun: bool,
}

/// One message on its way.
struct Waiting(watch::Sender<usize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl LineTransport {
    fn send_text(
        &self,
        text: Result<String, serde_json::Error>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.waiting.send_modify(|count| *count += 1);
        let waiting = Waiting(self.waiting.clone());
        let outgoing = self.lines.outgoing.clone();
        async move {
            let text = text.map_err(io::Error::other)?;
            let sent = outgoing.send(text).await;
            drop(waiting);
            sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }
}

impl Transport<RoleServer> for LineTransport {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.send_text(serde_json::to_string(&item))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            // A client that does not read is not read from either.
            let mut waiting = self.waiting.subscribe();
            waiting.wait_for(|count| *count < MAX_WAITING).await.ok()?;
            let text = self.lines.incoming.recv().await?;
            match message::parse(text.as_bytes()) {
                // What is told before the first request means nothing to anybody.
                Ok(message) if !self.begun && !matches!(message, JsonRpcMessage::Request(_)) => {}
                Ok(message) => {
                    self.begun = true;
                    return Some(message);
                }
                Err(error) => {
                    let reply = message::refusal(error, message::id_of(text.as_bytes()));
                    let sending = self.send_text(serde_json::to_string(&reply));
                    // Lost only when this wait is given up, and then the session ends.
                    sending.await.ok()?;
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.lines.incoming.close();
        Ok(())
    }
}
