//! One TCP connection over a WebSocket. An empty binary message is the end of a way, so that
//! either side can close its half.

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
};

use super::{broke, goodbye, pings, pongs};
use crate::{
    upgrade::Socket,
    ws::{Message, Receiver, Sender, WsError},
};

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;

/// Carries `tcp` until both ways have ended, or either side is gone.
pub(crate) async fn carry<T: AsyncRead + AsyncWrite + Send + Unpin>(socket: Socket, tcp: T) {
    let Socket { mut sender, mut receiver, end, .. } = socket;
    let (mut read, mut write) = tokio::io::split(tcp);
    let (pong, mut asked) = pongs();
    let ways = async {
        tokio::try_join!(
            from_inside(&mut read, &mut sender, &mut asked),
            to_inside(&mut receiver, &mut write, pong),
        )
    };
    let (code, why) = tokio::select! {
        ended = ways => match ended {
            Ok(_) => (1000, String::new()),
            Err(error) => {
                broke("a tunnel broke", &error);
                // 1006 is never sent (RFC 6455 §7.4.1).
                let code = error.close_code();
                if code == 1006 { (1000, String::new()) } else { (code, error.to_string()) }
            }
        },
        () = end.cancelled() => {
            let (code, why) = end.why();
            (code, why.to_owned())
        }
    };
    goodbye(&mut sender, &mut receiver, code, &why).await;
}

async fn from_inside<T: AsyncRead>(
    read: &mut ReadHalf<T>,
    sender: &mut Sender,
    asked: &mut mpsc::Receiver<Bytes>,
) -> Result<(), WsError> {
    let mut pings = pings();
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        tokio::select! {
            Some(payload) = asked.recv() => sender.pong(payload).await?,
            count = read.read_buf(&mut buffer) => {
                sender.binary(None, buffer.split().freeze()).await?;
                // A reset inside reads like an end: there is no way to pass it on.
                if !matches!(count, Ok(1..)) {
                    return Ok(());
                }
            }
            _ = pings.tick() => sender.ping().await?,
        }
    }
}

async fn to_inside<T: AsyncWrite>(
    receiver: &mut Receiver,
    write: &mut WriteHalf<T>,
    pong: mpsc::Sender<Bytes>,
) -> Result<(), WsError> {
    // When nobody reads inside, what is still on its way out goes on.
    let mut taken = true;
    loop {
        match receiver.next().await? {
            Message::Binary(data) if data.is_empty() => {
                let _gone = write.shutdown().await;
                return Ok(());
            }
            Message::Binary(data) => taken = taken && write.write_all(&data).await.is_ok(),
            Message::Ping(payload) => {
                // A full queue has a pong in it already.
                let _full = pong.try_send(payload);
            }
            Message::Pong => {}
            Message::Text(_) => {
                return Err(WsError::Protocol("a tunnel carries binary messages only"));
            }
            Message::Close(..) => return Err(WsError::Ended),
        }
    }
}
