//! One command's streams between a WebSocket and our own standard streams, across restarts of
//! the server.

mod input;
mod sink;

use std::time::Duration;

use pinfold_api::ws::{Message, Receiver, Sender, WsError};
use pinfold_types::{
    Error, ErrorCode, ExecId, Result, WorkspaceId,
    api::{ExecInput, ExecOutput},
    exec::ExecResult,
};
use tokio::sync::mpsc;

pub(crate) use self::input::Stdin;
use self::{
    input::{Event, Input},
    sink::Sink,
};
use crate::{
    client::{Client, lost, query},
    output::Output,
};

/// How long a lost server is waited for.
const REATTACH: Duration = Duration::from_mins(1);
/// How long one that somebody else may start again is given before we start one.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The command ended.
    Exited(ExecResult),
    /// We were told to leave by this signal; the command was told too.
    Signal(i32),
    /// Whoever read our output has gone.
    OutputClosed,
    /// The user typed the escape that ends a session.
    Detached,
}

/// A command as the server named it.
#[derive(Clone, Copy, Debug)]
struct Started {
    workspace: WorkspaceId,
    exec: ExecId,
    /// Next byte of output we have not seen.
    offset: u64,
}

/// Opens `path`, sends `first`, and moves bytes until the command ends.
pub(crate) struct Session<'a> {
    client: &'a Client,
    output: &'a Output,
    tty: bool,
    started: Option<Started>,
    sink: Sink,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("started", &self.started).finish_non_exhaustive()
    }
}

/// Why the pump stopped.
enum Stop {
    End(End),
    Lost(WsError),
    Failed(Error),
}

impl<'a> Session<'a> {
    /// A session; `tty` when the command has a terminal and ours is raw.
    pub(crate) fn new(client: &'a Client, output: &'a Output, tty: bool) -> Self {
        Self { client, output, tty, started: None, sink: Sink::new() }
    }

    /// Runs it to its end.
    pub(crate) async fn run(
        mut self,
        path: &str,
        first: Option<String>,
        stdin: Stdin,
    ) -> Result<End> {
        let (mut sender, mut receiver) = self.client.websocket(path).await?;
        if let Some(first) = first {
            sender.text(first).await.map_err(|error| lost(&error))?;
        }
        let mut input = Input::new(stdin, self.tty)?;
        loop {
            let stop = self.pump(&mut sender, &mut receiver, &mut input).await;
            match stop {
                Stop::End(end) => {
                    let written = self.sink.finish().await;
                    if let Some(error) = self.sink.failure() {
                        return Err(error);
                    }
                    if let (End::Exited(_), false) = (&end, written) {
                        return Ok(End::OutputClosed);
                    }
                    return Ok(end);
                }
                Stop::Failed(error) => {
                    self.sink.finish().await;
                    return Err(error);
                }
                Stop::Lost(error) => {
                    let Some(started) = self.started else { return Err(lost(&error)) };
                    (sender, receiver) = self.reattach(started).await?;
                }
            }
        }
    }

    async fn pump(
        &mut self,
        sender: &mut Sender,
        receiver: &mut Receiver,
        input: &mut Input,
    ) -> Stop {
        let (pongs, mut asked) = mpsc::channel(4);
        tokio::select! {
            stop = receive(receiver, &pongs, &mut self.started, &mut self.sink) => stop,
            stop = send(sender, &mut asked, input) => stop,
        }
    }

    /// Finds the command again behind a new server.
    async fn reattach(&self, started: Started) -> Result<(Sender, Receiver)> {
        let eol = if self.tty { "\r" } else { "" };
        self.output.note(format!("{eol}pinfold: the server is gone; attaching again …{eol}"));
        let from = started.offset.to_string();
        let path = format!(
            "/api/v1/workspaces/{}/execs/{}/attach{}",
            started.workspace,
            started.exec,
            query(&[("from", &from)])
        );
        let begun = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let mut client = self.client.clone();
            client.allow_start(begun.elapsed() > PATIENCE);
            match client.websocket(&path).await {
                Ok(pair) => {
                    self.output.note(format!("{eol}pinfold: attached again{eol}"));
                    return Ok(pair);
                }
                Err(error) if begun.elapsed() > REATTACH => return Err(error),
                Err(error)
                    if matches!(error.code, ErrorCode::NoServer | ErrorCode::Unavailable) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}

async fn receive(
    receiver: &mut Receiver,
    pongs: &mpsc::Sender<bytes::Bytes>,
    started: &mut Option<Started>,
    sink: &mut Sink,
) -> Stop {
    loop {
        match receiver.next().await {
            Ok(Message::Binary(mut data)) => {
                if data.is_empty() {
                    return Stop::Failed(Error::internal("a data message without its stream"));
                }
                let stream = data.split_to(1)[0];
                if let Some(started) = started {
                    started.offset += u64::try_from(data.len()).unwrap_or(0);
                }
                if !sink.write(stream, data).await {
                    return Stop::End(End::OutputClosed);
                }
            }
            Ok(Message::Text(text)) => match serde_json::from_str::<ExecOutput>(&text) {
                Ok(ExecOutput::Started { exec_id, workspace, offset, lost_bytes, .. }) => {
                    *started = Some(Started { workspace, exec: exec_id, offset });
                    if lost_bytes > 0 {
                        sink.remark(&format!(
                            "[{lost_bytes} bytes of earlier output are gone]\r\n"
                        ))
                        .await;
                    }
                }
                Ok(ExecOutput::Exited { result }) => return Stop::End(End::Exited(result)),
                Ok(ExecOutput::Failed { error }) => return Stop::Failed(error),
                Err(error) => return Stop::Failed(Error::internal(error)),
            },
            Ok(Message::Ping(payload)) => {
                // A full queue means that a pong is on its way already.
                let _full = pongs.try_send(payload);
            }
            Ok(Message::Pong) => {}
            Ok(Message::Close(..)) => return Stop::Lost(WsError::Ended),
            Err(error) => return Stop::Lost(error),
        }
    }
}

async fn send(
    sender: &mut Sender,
    asked: &mut mpsc::Receiver<bytes::Bytes>,
    input: &mut Input,
) -> Stop {
    loop {
        let sent = tokio::select! {
            Some(payload) = asked.recv() => sender.pong(payload).await,
            event = input.next() => match event {
                Event::Data(data) => sender.binary(None, data).await,
                Event::Eof => sender.text(json(&ExecInput::Eof)).await,
                Event::Resize(size) => sender.text(json(&ExecInput::Resize { size })).await,
                Event::Signal(signal) => sender.text(json(&ExecInput::Signal { signal })).await,
                Event::Leave(signal) => {
                    let _gone = sender.text(json(&ExecInput::Signal { signal })).await;
                    return Stop::End(End::Signal(signal));
                }
                Event::Detach => return Stop::End(End::Detached),
            },
        };
        if let Err(error) = sent {
            return Stop::Lost(error);
        }
    }
}

fn json(message: &ExecInput) -> String {
    serde_json::to_string(message).expect("a plain enum is JSON")
}
