//! A client of the home's server, over its unix socket, or of a server elsewhere: HTTP for calls, WebSocket for streams. Starts a server
//! when there is none.

mod call;
mod remote;
mod socket;
mod start;
mod stream;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pinfold_types::{Error, ErrorCode, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use self::remote::Stream;
pub(crate) use self::{
    call::{Body, encode_segment, query},
    remote::Remote,
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
    /// The server elsewhere that is used instead.
    remote: Option<Arc<Remote>>,
}

impl Client {
    /// A client of the server elsewhere, or else of the home's, which is started when none
    /// answers.
    pub(crate) fn new(home: Home, remote: Option<Remote>) -> Self {
        Self { home, start: true, remote: remote.map(Arc::new) }
    }

    /// The same client, which never starts a server.
    pub(crate) fn existing(&self) -> Self {
        Self { start: false, ..self.clone() }
    }

    /// Whether it speaks to a server elsewhere.
    pub(crate) const fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Value of `Host`.
    fn host(&self) -> HeaderValue {
        self.remote
            .as_ref()
            .map_or(HeaderValue::from_static("pinfold"), |remote| remote.authority().clone())
    }

    /// Names the server, and us where its kernel does not.
    fn sign(&self, headers: &mut HeaderMap) {
        headers.insert(header::HOST, self.host());
        if let Some(remote) = &self.remote {
            headers.insert(header::AUTHORIZATION, remote.token().clone());
        }
    }

    /// Whether a missing server is started from now on.
    pub(crate) fn allow_start(&mut self, start: bool) {
        self.start = start;
    }

    /// A connection to the home's server.
    async fn connect(&self) -> Result<UnixStream> {
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
        let Some(remote) = &self.remote else { return speak(self.connect().await?).await };
        match remote.connect().await? {
            Stream::Plain(stream) => speak(stream).await,
            Stream::Tls(stream) => speak(*stream).await,
        }
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
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

fn no_server(home: &Home) -> Error {
    Error::new(ErrorCode::NoServer, format!("no server answers for {}", home.path().display()))
        .hint("start one: pinfold up")
}

/// The connection broke in the middle.
pub(crate) fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::NoServer, format!("the connection to the server was lost: {error}"))
        .hint("the server may have stopped; look at server.log in the home")
}
