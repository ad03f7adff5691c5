//! What one HTTP request finds behind the SDK's transport: its session, or none.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::Stream;
use pinfold_types::Error;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager},
};

use super::{
    session::{Session, SessionTransport},
    streams::Opened,
};

/// The session of one request. Whose it is was decided before.
#[derive(Debug, Default)]
pub(crate) struct Doorway {
    session: Option<Arc<Session>>,
    /// Of a session that this request begins.
    transport: Mutex<Option<SessionTransport>>,
    /// The stream for the answer to this request.
    answer: Mutex<Option<Opened>>,
}

impl Doorway {
    /// For a request that stands alone.
    pub(crate) fn alone() -> Self {
        Self::default()
    }

    /// For a request that begins this session.
    pub(crate) fn begins(session: Arc<Session>, transport: SessionTransport) -> Self {
        Self {
            session: Some(session),
            transport: Mutex::new(Some(transport)),
            answer: Mutex::default(),
        }
    }

    /// For a request in this session, answered on this stream.
    pub(crate) fn within(session: Arc<Session>, answer: Option<Opened>) -> Self {
        Self { session: Some(session), transport: Mutex::default(), answer: Mutex::new(answer) }
    }

    fn session(&self) -> Result<&Arc<Session>, Refused> {
        self.session.as_ref().ok_or_else(|| Refused(Error::internal("a request without a session")))
    }
}

/// A fault of ours: everything else was refused before.
#[derive(Debug)]
pub(crate) struct Refused(Error);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Refused {}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl SessionManager for Doorway {
    type Error = Refused;
    type Transport = SessionTransport;

    async fn create_session(&self) -> Result<(SessionId, SessionTransport), Refused> {
        let transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner).take();
        let transport = transport.ok_or_else(|| Error::internal("a session begins once"))?;
        Ok((Arc::clone(self.session()?.id()), transport))
    }

    async fn initialize_session(
        &self,
        _id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Refused> {
        Ok(self.session()?.greet(message).await?)
    }

    async fn has_session(&self, _id: &SessionId) -> Result<bool, Refused> {
        Ok(self.session.is_some())
    }

    async fn close_session(&self, _id: &SessionId) -> Result<(), Refused> {
        if let Some(session) = &self.session {
            session.end.cancel();
        }
        Ok(())
    }

    async fn create_stream(
        &self,
        _id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Refused> {
        let session = self.session()?;
        let opened = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opened = opened.ok_or_else(|| Error::internal("an answer without a stream"))?;
        session.hand_in(message).await?;
        Ok(opened.read())
    }

    async fn accept_message(
        &self,
        _id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Refused> {
        Ok(self.session()?.hand_in(message).await?)
    }

    async fn create_standalone_stream(
        &self,
        _id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Refused> {
        Ok(self.session()?.streams.listen())
    }

    async fn resume(
        &self,
        _id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Refused> {
        Ok(self.session()?.streams.resume(&last_event_id)?)
    }
}
