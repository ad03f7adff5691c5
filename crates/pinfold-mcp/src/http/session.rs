//! One session over HTTP: whose it is, what it waits for, how it ends.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pinfold_auth::{Caller, CredentialClass};
use pinfold_types::{Error, PrincipalId, Result, TokenId};
use rmcp::model::{
    ClientJsonRpcMessage, JsonRpcMessage, ProtocolVersion, ServerJsonRpcMessage, ServerResult,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::streams::Streams;

/// Messages of the client that wait to be taken.
const QUEUE: usize = 32;
/// Random bytes of a session's id.
const ID_BYTES: usize = 32;

/// Whom a session belongs to. Its id is known to nobody else, and opens nothing to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    principal: PrincipalId,
    class: CredentialClass,
    /// An access token of OAuth is replaced by the next every few minutes, in the same session:
    /// there it is what the client was granted that stays.
    token: Option<TokenId>,
    grant: Option<String>,
}

impl Owner {
    pub(crate) fn of(caller: &Caller) -> Self {
        let principal = caller.principal();
        let class = principal.class();
        let token = principal.token().filter(|_| class != CredentialClass::Mcp);
        let grant = principal.grant().map(str::to_owned);
        Self { principal: principal.id(), class, token, grant }
    }

    pub(crate) const fn principal(&self) -> PrincipalId {
        self.principal
    }

    /// Whether the session ends with the credential that opened it.
    pub(crate) fn ends_with_credential(&self) -> bool {
        self.class != CredentialClass::Mcp
    }
}

/// What both the requests and the protocol's loop of a session hold.
#[derive(Debug)]
pub(crate) struct Session {
    id: Arc<str>,
    owner: Owner,
    incoming: mpsc::Sender<ClientJsonRpcMessage>,
    greeting: Mutex<Option<oneshot::Sender<ServerJsonRpcMessage>>>,
    version: OnceLock<ProtocolVersion>,
    pub(crate) streams: Arc<Streams>,
    /// It has to end: what runs in it is cancelled.
    pub(crate) end: CancellationToken,
    /// It has ended, with all that it held.
    pub(crate) ended: CancellationToken,
    listening: AtomicUsize,
    last: Mutex<Instant>,
}

/// The protocol's end of a session.
#[derive(Debug)]
pub(crate) struct SessionTransport {
    session: Arc<Session>,
    incoming: mpsc::Receiver<ClientJsonRpcMessage>,
}

/// A connection on which the client listens.
#[derive(Debug)]
pub(crate) struct Listening(Arc<Session>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.touch();
        self.0.listening.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// A new one, and what the protocol's loop reads and writes.
    pub(crate) fn new(owner: Owner) -> Result<(Arc<Self>, SessionTransport)> {
        let mut id = [0; ID_BYTES];
        getrandom::fill(&mut id).map_err(Error::internal)?;
        let (incoming, taken) = mpsc::channel(QUEUE);
        let session = Arc::new(Self {
            id: data_encoding::HEXLOWER.encode(&id).into(),
            owner,
            incoming,
            greeting: Mutex::default(),
            version: OnceLock::new(),
            streams: Arc::default(),
            end: CancellationToken::new(),
            ended: CancellationToken::new(),
            listening: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
        });
        Ok((Arc::clone(&session), SessionTransport { session, incoming: taken }))
    }

    pub(crate) const fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(crate) const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Something was asked or read.
    pub(crate) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Counts a connection on which the client listens.
    pub(crate) fn listening(self: &Arc<Self>) -> Listening {
        self.touch();
        self.listening.fetch_add(1, Ordering::Relaxed);
        Listening(Arc::clone(self))
    }

    /// Returns when nobody has asked, listened or waited for an answer for `idle`.
    pub(crate) async fn idle(&self, idle: Duration) {
        loop {
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            tokio::time::sleep_until(last + idle).await;
            if self.listening.load(Ordering::Relaxed) > 0 || self.streams.waiting() > 0 {
                self.touch();
                continue;
            }
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= idle {
                return;
            }
        }
    }

    /// Hands a message of the client to the protocol's loop.
    pub(crate) async fn hand_in(&self, message: ClientJsonRpcMessage) -> Result<()> {
        self.touch();
        self.streams.hear(&message);
        self.incoming.send(message).await.map_err(|_| Error::internal("the session has ended"))
    }

    /// Begins the protocol: gives the answer to the first request.
    pub(crate) async fn greet(
        &self,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage> {
        let (sender, answer) = oneshot::channel();
        *self.greeting.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.incoming.send(message).await.map_err(|_| Error::internal("it ended at once"))?;
        answer.await.map_err(|_| Error::internal("a session ended before it began"))
    }

    fn say(&self, message: ServerJsonRpcMessage) {
        let first = self.greeting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(first) = first else { return self.streams.say(message) };
        if let JsonRpcMessage::Response(response) = &message
            && let ServerResult::InitializeResult(result) = &response.result
        {
            // An earlier revision does not know events without a message.
            if result.protocol_version >= ProtocolVersion::V_2025_11_25 {
                self.streams.prime();
            }
            let _only = self.version.set(result.protocol_version.clone());
        }
        // Who asked is gone; so is the session, then.
        let _gone = first.send(message);
    }
}

impl rmcp::transport::Transport<rmcp::RoleServer> for SessionTransport {
    type Error = std::io::Error;

    fn send(
        &mut self,
        item: ServerJsonRpcMessage,
    ) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        self.session.say(item);
        std::future::ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        tokio::select! {
            message = self.incoming.recv() => message,
            () = self.session.end.cancelled() => None,
        }
    }

    async fn close(&mut self) -> std::io::Result<()> {
        self.incoming.close();
        Ok(())
    }
}
