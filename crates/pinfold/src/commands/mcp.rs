//! `pinfold mcp`: a pipe between a client's lines and the server's frames.
//!
//! It understands just enough of the messages to survive a restart of the server: which request
//! began the session, and which have no answer yet.

mod lines;
mod session;

use std::time::Duration;

use http::Method;
use pinfold_api::ws::{Message, Receiver, Sender};
use pinfold_types::{
    Error, ErrorCode, Result, SessionId,
    access::{CreateSession, SessionInfo},
    limits::MAX_BODY_BYTES,
};
use tokio::time::Instant;

use self::{
    lines::{Input, Line, Output},
    session::Session,
};
use super::Context;
use crate::client::Client;

/// Where the server speaks MCP.
const PATH: &str = "/api/v1/mcp";
/// How long the end of a session may take.
const END: Duration = Duration::from_secs(2);
/// Largest message of the server: its largest answer, and room.
const MAX_ANSWER_BYTES: usize = 2 * MAX_BODY_BYTES;
/// First and longest pause between looks for a server that went away.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(5);
/// How long a server may take to answer the replayed beginning.
const REPLAY: Duration = Duration::from_secs(30);
/// How long answers to a client that said all it has to say are waited for.
const LAST: Duration = Duration::from_mins(10);

/// An open connection.
struct Link {
    sender: Sender,
    receiver: Receiver,
}

pub(super) async fn mcp(context: &Context) -> Result<u8> {
    let mut existing = context.client.clone();
    existing.allow_start(false);
    let mut pipe = Pipe {
        starting: context.client.clone(),
        existing,
        session: Session::default(),
        owner: None,
        output: Output::new(),
    };
    let ended = pipe.run(&mut Input::new()).await;
    pipe.end().await;
    pipe.output.close().await;
    ended.map(|()| 0)
}

struct Pipe {
    /// Starts a server when a message needs one.
    starting: Client,
    /// Only looks for one.
    existing: Client,
    session: Session,
    /// The server's session of this process, which owns what is made here.
    owner: Option<SessionId>,
    output: Output,
}

/// What happened next.
enum Next {
    Line(Line),
    Frame(Result<Message, pinfold_api::ws::WsError>),
    Look,
    Give,
}

impl Pipe {
    async fn run(&mut self, input: &mut Input) -> Result<()> {
        let mut link: Option<Link> = None;
        let (mut pause, mut look) = (SOON, None);
        let mut last = None;
        loop {
            let next = tokio::select! {
                read = input.next(), if last.is_none() => Next::Line(read?),
                frame = receive(&mut link) => Next::Frame(frame),
                () = at(look), if link.is_none() => Next::Look,
                () = at(last), if last.is_some() => Next::Give,
            };
            match next {
                Next::Line(Line::End) => {
                    if link.is_none() || self.session.waiting() == 0 {
                        return finish(link).await;
                    }
                    last = Some(Instant::now() + LAST);
                }
                Next::Give => return finish(link).await,
                Next::Line(Line::TooLong) => {
                    self.output.line(&session::too_long()).await?;
                }
                Next::Line(Line::Text(text)) => {
                    if link.is_none() {
                        self.session.name_of(&text);
                        match self.open(&self.starting.clone()).await {
                            Ok(opened) => link = Some(opened),
                            Err(error) => {
                                self.refuse(&text, &error).await?;
                                continue;
                            }
                        }
                    }
                    self.session.note_client(&text);
                    let sent = match &mut link {
                        Some(link) => link.sender.text(text).await.is_ok(),
                        None => false,
                    };
                    if !sent {
                        self.lost(&mut link).await?;
                        (pause, look) = (SOON, Some(Instant::now()));
                    }
                }
                Next::Frame(Ok(Message::Text(text))) => {
                    self.session.note_server(&text);
                    self.output.line(&text).await?;
                    if last.is_some() && self.session.waiting() == 0 {
                        return finish(link).await;
                    }
                }
                Next::Frame(Ok(Message::Ping(payload))) => {
                    if let Some(link) = &mut link {
                        // A lost connection says so when it is read.
                        let _lost = link.sender.pong(payload).await;
                    }
                }
                Next::Frame(Ok(Message::Pong | Message::Binary(_))) => {}
                Next::Frame(Ok(Message::Close(..)) | Err(_)) => {
                    self.lost(&mut link).await?;
                    if last.is_some() {
                        return Ok(());
                    }
                    (pause, look) = (SOON, Some(Instant::now() + SOON));
                }
                Next::Look => {
                    // A session that never began needs no server until it does.
                    look = None;
                    if self.session.begun() {
                        link = self.open(&self.existing.clone()).await.ok();
                        pause = (pause * 2).min(LATE);
                        look = Some(Instant::now() + pause);
                    }
                }
            }
        }
    }

    /// Connects, and tells the server what this session began with.
    async fn open(&mut self, client: &Client) -> Result<Link> {
        let (sender, mut receiver) = self.connect(client).await?;
        receiver.limit(MAX_ANSWER_BYTES);
        let mut link = Link { sender, receiver };
        let Some(opening) = self.session.opening() else { return Ok(link) };
        let gone = |_| Error::internal("the server went away while a session was opened again");
        link.sender.text(opening.request).await.map_err(gone)?;
        let answered = tokio::time::timeout(REPLAY, async {
            loop {
                match link.receiver.next().await.map_err(gone)? {
                    Message::Text(text) if session::answers(&text, &opening.id) => return Ok(()),
                    Message::Close(..) => return Err(Error::internal("the server closed")),
                    _ => {}
                }
            }
        });
        answered.await.map_err(|_| Error::internal("the server did not answer"))??;
        if let Some(told) = opening.told {
            link.sender.text(told).await.map_err(gone)?;
        }
        Ok(link)
    }

    /// A connection in this process's own session, which outlives connections.
    async fn connect(&mut self, client: &Client) -> Result<(Sender, Receiver)> {
        if self.owner.is_some() {
            match client.websocket_in(PATH, self.owner).await {
                // It was ended, or another home is in its place.
                Err(error) if error.code == ErrorCode::NotFound => {}
                connected => return connected,
            }
        }
        let request = CreateSession { client: self.session.client() };
        let made: SessionInfo = client.send(Method::POST, "/api/v1/sessions", &request).await?;
        self.owner = Some(made.id);
        client.websocket_in(PATH, self.owner).await
    }

    /// Ends the session of this process: what it owned is free from then on.
    async fn end(&mut self) {
        if let Some(id) = self.owner.take() {
            let path = format!("/api/v1/sessions/{id}");
            // Without a server it ends by being silent.
            let ending = self.existing.act::<()>(Method::DELETE, &path);
            let _silent = tokio::time::timeout(END, ending).await;
        }
    }

    /// Answers everything that now never gets another answer.
    async fn lost(&mut self, link: &mut Option<Link>) -> Result<()> {
        *link = None;
        for answer in self.session.lost() {
            self.output.line(&answer).await?;
        }
        Ok(())
    }

    /// Answers a request for which there is no server.
    async fn refuse(&mut self, text: &str, error: &Error) -> Result<()> {
        match session::refusal(text, error) {
            Some(answer) => self.output.line(&answer).await,
            None => Ok(()),
        }
    }
}

async fn receive(link: &mut Option<Link>) -> Result<Message, pinfold_api::ws::WsError> {
    match link {
        Some(link) => link.receiver.next().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn finish(link: Option<Link>) -> Result<()> {
    if let Some(mut link) = link {
        let _gone = link.sender.close(1000, "").await;
    }
    Ok(())
}
