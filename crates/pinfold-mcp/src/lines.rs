//! One client whose messages come as lines: standard input and output, carried over a WebSocket.

use std::{future::Future, io};

use pinfold_auth::{Caller, Surface};
use pinfold_control::{Node, Service};
use rmcp::{
    RoleServer,
    model::{ClientJsonRpcMessage, ErrorData, JsonRpcMessage},
    service::{RxJsonRpcMessage, TxJsonRpcMessage, serve_server},
    transport::Transport,
};
use tokio::sync::{mpsc, watch};

use crate::{handler::Handler, limits::MAX_WAITING};

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
    match serve_server(Handler::new(service, Some(caller)), transport).await {
        Ok(running) => {
            if let Err(error) = running.waiting().await {
                tracing::error!(%error, "an MCP session broke");
            }
        }
        // Gone before it said what it wants.
        Err(error) => tracing::debug!(%error, "an MCP session did not begin"),
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

    /// The message in this line, or what is wrong with it.
    fn parse(text: &str) -> Result<ClientJsonRpcMessage, ErrorData> {
        match serde_json::from_str(text) {
            Ok(message) => Ok(message),
            Err(error) if error.is_data() => Err(ErrorData::invalid_request(
                format!("not a JSON-RPC 2.0 message: {error}"),
                None,
            )),
            Err(error) => Err(ErrorData::parse_error(format!("not JSON: {error}"), None)),
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
            match Self::parse(&text) {
                // What is told before the first request means nothing to anybody.
                Ok(message) if !self.begun && !matches!(message, JsonRpcMessage::Request(_)) => {}
                Ok(message) => {
                    self.begun = true;
                    return Some(message);
                }
                Err(error) => {
                    let reply = JsonRpcMessage::<(), (), ()>::error(error, id_of(&text));
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

/// The id of a request that is malformed elsewhere.
fn id_of(text: &str) -> Option<rmcp::model::RequestId> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    serde_json::from_value(value.get("id")?.clone()).ok()
}
