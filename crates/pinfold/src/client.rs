//! A client of the server's unix socket: HTTP for calls, WebSocket for streams. Starts a server
//! when there is none.

mod call;
mod socket;
mod start;
mod stream;

use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pinfold_types::{Error, ErrorCode, Result};
use tokio::net::UnixStream;

pub(crate) use self::{
    call::{Body, encode_segment, query},
    start::{READY_LINE, answers},
    stream::{BodyWriter, NdJson, body_channel},
};
use crate::home::Home;

/// How long a reply's head may take where the operation does not say otherwise.
const REPLY: Duration = Duration::from_mins(5);

/// One home's server, as seen from a command.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    home: Home,
    /// Whether a missing server is started.
    start: bool,
}

impl Client {
    /// A client that starts a server when none answers.
    pub(crate) const fn new(home: Home) -> Self {
        Self { home, start: true }
    }

    /// A client that never starts one.
    pub(crate) const fn existing(home: Home) -> Self {
        Self { home, start: false }
    }

    /// Whether a missing server is started from now on.
    pub(crate) fn allow_start(&mut self, start: bool) {
        self.start = start;
    }

    /// A connection to the server.
    pub(crate) async fn connect(&self) -> Result<UnixStream> {
        let path = self.home.socket();
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(stream),
            Err(error) if start::nobody_listens(&error) && self.start => {
                start::start(&self.home).await?;
                UnixStream::connect(&path)
                    .await
                    .map_err(|error| no_server(&self.home).context(error))
            }
            Err(error) if start::nobody_listens(&error) => Err(no_server(&self.home)),
            Err(error) => Err(Error::new(
                ErrorCode::NoServer,
                format!("the server's socket {} cannot be used: {error}", path.display()),
            )
            .hint("a home belongs to one user; give another with --home")),
        }
    }

    async fn http(&self) -> Result<SendRequest<Body>> {
        let stream = self.connect().await?;
        let (sender, connection) = http1::Builder::new()
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        // Ends with the connection, at the latest with the process.
        tokio::spawn(async move {
            let _closed = connection.with_upgrades().await;
        });
        Ok(sender)
    }
}

fn no_server(home: &Home) -> Error {
    Error::new(ErrorCode::NoServer, format!("no server answers for {}", home.path().display()))
        .hint("start one: pinfold up")
}

/// The connection broke in the middle.
pub(crate) fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::NoServer, format!("the connection to the server was lost: {error}"))
        .hint("the server may have stopped; look at server.log in the home")
}
