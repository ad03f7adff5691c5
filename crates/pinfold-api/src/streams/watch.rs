//! Changes below a path: one JSON text message an event.

use pinfold_types::api::WatchEvent;
use tokio::sync::mpsc;

use super::{broke, goodbye, pings, pongs};
use crate::{
    upgrade::Socket,
    ws::{Message, Receiver, Sender, WsError},
};

/// Carries events until the watch or the client ends.
pub(crate) async fn carry(
    socket: Socket,
    mut events: impl std::ops::DerefMut<Target = mpsc::Receiver<WatchEvent>> + Send,
) {
    let Socket { mut sender, mut receiver, end, .. } = socket;
    let (pong, mut asked) = pongs();
    let ended = tokio::select! {
        ended = tell(&mut sender, &mut events, &mut asked) => ended,
        ended = listen(&mut receiver, &pong) => ended,
        () = end.cancelled() => {
            let (code, why) = end.why();
            return goodbye(&mut sender, &mut receiver, code, why).await;
        }
    };
    match ended {
        Ok(()) => goodbye(&mut sender, &mut receiver, 1000, "").await,
        Err(error) => {
            broke("a watch broke", &error);
            if error.close_code() != 1006 {
                let _gone = sender.close(error.close_code(), &error.to_string()).await;
            }
        }
    }
}

async fn tell(
    sender: &mut Sender,
    events: &mut mpsc::Receiver<WatchEvent>,
    asked: &mut mpsc::Receiver<bytes::Bytes>,
) -> Result<(), WsError> {
    let mut pings = pings();
    loop {
        tokio::select! {
            Some(payload) = asked.recv() => sender.pong(payload).await?,
            event = events.recv() => match event {
                None => return Ok(()),
                Some(event) => {
                    let text = serde_json::to_string(&event).expect("plain data is JSON");
                    sender.text(text).await?;
                }
            },
            _ = pings.tick() => sender.ping().await?,
        }
    }
}

async fn listen(receiver: &mut Receiver, pong: &mpsc::Sender<bytes::Bytes>) -> Result<(), WsError> {
    loop {
        match receiver.next().await? {
            Message::Ping(payload) => {
                let _full = pong.try_send(payload);
            }
            Message::Pong => {}
            Message::Close(..) => return Ok(()),
            Message::Text(_) | Message::Binary(_) => {
                return Err(WsError::Protocol("a watch takes no messages"));
            }
        }
    }
}
