//! One command over a WebSocket.

use bytes::Bytes;
use pinfold_control::{ExecEvent, ExecSession, ExecStart};
use pinfold_types::{
    Error, ErrorCode, Result,
    api::{ExecInput, ExecOutput},
    exec::check_tty,
    limits::MAX_BODY_BYTES,
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{FIRST, STALLED, broke, goodbye, pings, pongs};
use crate::{
    json,
    upgrade::Socket,
    ws::{MAX_MESSAGE_BYTES, Message, Receiver, Sender, WsError},
};

/// Stream byte of standard output.
const STDOUT: u8 = 1;
/// Stream byte of standard error.
const STDERR: u8 = 2;

/// The first message of a stream, which says what to run.
pub(crate) async fn first<T: DeserializeOwned>(socket: &mut Socket) -> Result<T> {
    socket.receiver.limit(MAX_BODY_BYTES);
    let bad = |why: String| Error::new(ErrorCode::InvalidBody, why);
    let text = loop {
        let next = tokio::time::timeout(FIRST, socket.receiver.next()).await.map_err(|_| {
            Error::new(ErrorCode::Timeout, format!("no request came for {} s", FIRST.as_secs()))
        })?;
        match next {
            Ok(Message::Text(text)) => break text,
            Ok(Message::Ping(_) | Message::Pong) => {}
            Ok(Message::Binary(_)) => return Err(bad("the first message must be text".into())),
            Ok(Message::Close(..)) | Err(WsError::Ended | WsError::Io(_)) => {
                return Err(Error::new(ErrorCode::Cancelled, "the client went away"));
            }
            Err(WsError::TooLarge) => {
                return Err(Error::new(
                    ErrorCode::TooLarge,
                    format!("the request is larger than {MAX_BODY_BYTES} bytes"),
                ));
            }
            Err(error) => return Err(bad(error.to_string())),
        }
    };
    socket.receiver.limit(MAX_MESSAGE_BYTES);
    json::parse(text.as_bytes())
}

/// Says that there will be no stream, and why.
pub(crate) async fn refuse(mut socket: Socket, error: Error) {
    if error.code == ErrorCode::Internal {
        tracing::error!(cause = error.internal, "a stream could not begin");
    }
    let message = json(&ExecOutput::Failed { error });
    if socket.sender.text(message).await.is_ok() {
        goodbye(&mut socket.sender, &mut socket.receiver, 1000, "").await;
    }
}

/// Carries the command until it ends, the client goes, or the server does.
pub(crate) async fn carry<S: ExecSession>(socket: Socket, mut session: S) {
    let Socket { mut sender, mut receiver, end, .. } = socket;
    if sender.text(json(&started(&session.start()))).await.is_err() {
        return;
    }
    let input = session.input();
    let (pong, mut asked) = pongs();
    let ended = tokio::select! {
        ended = output(&mut sender, &mut session, &mut asked) => ended,
        ended = read(&mut receiver, &input, &pong) => ended,
        // The command goes on; the client comes back to the next server.
        () = end.cancelled() => Ended::Server,
    };
    match ended {
        Ended::Command => goodbye(&mut sender, &mut receiver, 1000, "").await,
        Ended::Server => {
            let (code, why) = end.why();
            goodbye(&mut sender, &mut receiver, code, why).await;
        }
        Ended::Client => {}
        Ended::Broken(error) => {
            broke("an exec stream broke", &error);
            let _gone = sender.close(error.close_code(), &error.to_string()).await;
        }
    }
}

/// The first message: what runs, and where its output begins.
pub(crate) fn started(start: &ExecStart) -> ExecOutput {
    ExecOutput::Started {
        exec_id: start.exec_id,
        workspace: start.workspace,
        boot: start.boot,
        pid: start.pid,
        offset: start.offset,
        lost_bytes: start.lost_bytes,
    }
}

enum Ended {
    Command,
    Client,
    Server,
    Broken(WsError),
}

async fn output<S: ExecSession>(
    sender: &mut Sender,
    session: &mut S,
    asked: &mut mpsc::Receiver<Bytes>,
) -> Ended {
    let mut pings = pings();
    loop {
        let sending = async {
            tokio::select! {
                biased;
                Some(payload) = asked.recv() => sender.pong(payload).await.map(|()| false),
                event = session.next() => match event {
                    Some(ExecEvent::Stdout(data)) => {
                        sender.binary(Some(STDOUT), data).await.map(|()| false)
                    }
                    Some(ExecEvent::Stderr(data)) => {
                        sender.binary(Some(STDERR), data).await.map(|()| false)
                    }
                    Some(ExecEvent::Exited(result)) => {
                        sender.text(json(&ExecOutput::Exited { result })).await.map(|()| true)
                    }
                    Some(ExecEvent::Failed(error)) => {
                        sender.text(json(&ExecOutput::Failed { error })).await.map(|()| true)
                    }
                    None => Ok(true),
                },
                _ = pings.tick() => sender.ping().await.map(|()| false),
            }
        };
        match tokio::time::timeout(STALLED, sending).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return Ended::Command,
            Ok(Err(WsError::Ended | WsError::Io(_))) | Err(_) => return Ended::Client,
            Ok(Err(error)) => return Ended::Broken(error),
        }
    }
}

async fn read<I: pinfold_control::ExecInput>(
    receiver: &mut Receiver,
    input: &I,
    pong: &mpsc::Sender<Bytes>,
) -> Ended {
    loop {
        let done = match receiver.next().await {
            Ok(Message::Binary(data)) => input.write(data).await,
            Ok(Message::Text(text)) => match json::parse(text.as_bytes()) {
                Ok(ExecInput::Resize { size }) => match check_tty(size) {
                    Ok(()) => input.resize(size).await,
                    Err(_) => return Ended::Broken(WsError::Protocol("a wild terminal size")),
                },
                Ok(ExecInput::Signal { signal }) if (1..=64).contains(&signal) => {
                    input.signal(signal).await
                }
                Ok(ExecInput::Signal { .. }) => {
                    return Ended::Broken(WsError::Protocol("a signal outside 1 to 64"));
                }
                Ok(ExecInput::Eof) => input.eof().await,
                Err(_) => return Ended::Broken(WsError::Protocol("a text that is not ExecInput")),
            },
            Ok(Message::Ping(payload)) => {
                // A full queue has a pong in it already.
                let _full = pong.try_send(payload);
                Ok(())
            }
            Ok(Message::Pong) => Ok(()),
            Ok(Message::Close(..)) | Err(WsError::Ended | WsError::Io(_)) => return Ended::Client,
            Err(error) => return Ended::Broken(error),
        };
        // The command may have ended, or not read its input: its own end says how it went.
        if let Err(error) = done {
            tracing::debug!(%error, "input was not taken");
        }
    }
}

fn json(message: &ExecOutput) -> String {
    serde_json::to_string(message).expect("plain data is JSON")
}
