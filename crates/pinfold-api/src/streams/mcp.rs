//! One MCP client over a WebSocket: a JSON-RPC message in each text frame.

use std::future::Future;

use bytes::Bytes;
use pinfold_types::limits::MAX_BODY_BYTES;
use tokio::sync::mpsc;

use super::{STALLED, broke, goodbye, pings, pongs};
use crate::{
    routes::mcp::McpStream,
    upgrade::Socket,
    ws::{Message, Receiver, Sender, WsError},
};

/// Messages between the socket and who serves them.
const QUEUE: usize = 16;
/// A close frame of a client that has gone asks for no answer of ours beyond this.
const NORMAL: u16 = 1000;
/// The server restarts; a client may come back (RFC 6455 §7.4.2's registry).
const RESTART: u16 = 1012;

/// Carries messages until the client goes, the server does, or `serve` is done.
pub(crate) async fn carry<F>(socket: Socket, serve: impl FnOnce(McpStream) -> F)
where
    F: Future<Output = ()>,
{
    let Socket { mut sender, mut receiver, end, .. } = socket;
    receiver.limit(MAX_BODY_BYTES);
    let (inward, incoming) = mpsc::channel(QUEUE);
    let (outgoing, mut outward) = mpsc::channel(QUEUE);
    let (pong, mut asked) = pongs();
    let serving = serve(McpStream { incoming, outgoing });
    let ways = async {
        tokio::join!(
            // Its end lets what is on its way out be sent, then the outward way ends by itself.
            serving,
            read(&mut receiver, inward, &pong),
            write(&mut sender, &mut outward, &mut asked),
        )
    };
    let code = tokio::select! {
        ((), read, write) = ways => match (read, write) {
            (Ok(()), Ok(())) => NORMAL,
            (Err(error), _) | (_, Err(error)) => {
                broke("an MCP stream broke", &error);
                // 1006 is never sent (RFC 6455 §7.4.1).
                if error.close_code() == 1006 { NORMAL } else { error.close_code() }
            }
        },
        () = end.cancelled() => RESTART,
    };
    goodbye(&mut sender, &mut receiver, code, "").await;
}

async fn read(
    receiver: &mut Receiver,
    inward: mpsc::Sender<String>,
    pong: &mpsc::Sender<Bytes>,
) -> Result<(), WsError> {
    loop {
        let message = tokio::select! {
            message = receiver.next() => message,
            // Nobody serves any more.
            () = inward.closed() => return Ok(()),
        };
        match message? {
            Message::Text(text) => {
                if inward.send(text).await.is_err() {
                    return Ok(());
                }
            }
            Message::Ping(payload) => {
                // A full queue has a pong in it already.
                let _full = pong.try_send(payload);
            }
            Message::Pong => {}
            Message::Binary(_) => return Err(WsError::Protocol("MCP messages are text")),
            Message::Close(..) => return Ok(()),
        }
    }
}

async fn write(
    sender: &mut Sender,
    outward: &mut mpsc::Receiver<String>,
    asked: &mut mpsc::Receiver<Bytes>,
) -> Result<(), WsError> {
    let mut pings = pings();
    loop {
        let sending = async {
            tokio::select! {
                biased;
                Some(payload) = asked.recv() => sender.pong(payload).await.map(|()| false),
                text = outward.recv() => match text {
                    Some(text) => sender.text(text).await.map(|()| false),
                    None => Ok(true),
                },
                _ = pings.tick() => sender.ping().await.map(|()| false),
            }
        };
        let sent = tokio::time::timeout(STALLED, sending).await.unwrap_or(Err(WsError::Ended));
        match sent {
            Ok(false) => {}
            Ok(true) => return Ok(()),
            Err(error) => {
                // Nobody takes what else is said.
                outward.close();
                return Err(error);
            }
        }
    }
}
