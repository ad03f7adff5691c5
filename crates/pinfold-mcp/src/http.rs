//! MCP over streamable HTTP: one endpoint for POST, GET and DELETE.
//!
//! Whoever hands a request in has authenticated it: its [`Caller`] is in its extensions. Here a
//! request is looked at before anything is answered (method, types, size, message, session, rights),
//! and then given to the SDK's transport, which speaks the protocol. Revisions before 2026-07-28
//! have sessions, which the server makes; requests of that revision stand alone.

mod doorway;
mod head;
mod host;
mod refuse;
mod session;
mod sessions;
mod streams;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use pinfold_auth::Caller;
use pinfold_control::ByteStream;
use pinfold_types::{Error, ErrorCode, Result, config::StreamsConfig};
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage},
    transport::{StreamableHttpServerConfig, StreamableHttpService},
};
use tokio_util::sync::CancellationToken;

use self::{
    doorway::Doorway,
    refuse::{refused, unknown_session},
    session::{Owner, Session},
    sessions::Sessions,
};
pub use self::{
    host::{Host, Lease, Refusal},
    streams::Hangup,
};
use crate::message;

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<ResponseBody>;

/// Serves a host at one path.
#[derive(Debug)]
pub struct Endpoint<H: Host> {
    host: Arc<H>,
    sessions: Sessions<H>,
    stop: CancellationToken,
}

impl<H: Host> Clone for Endpoint<H> {
    fn clone(&self) -> Self {
        Self {
            host: Arc::clone(&self.host),
            sessions: self.sessions.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<H: Host> Endpoint<H> {
    /// Serves `host`, with sessions within these bounds. From `stop` on nobody begins or listens.
    pub fn new(host: H, bounds: StreamsConfig, stop: CancellationToken) -> Self {
        Self { host: Arc::new(host), sessions: Sessions::new(bounds), stop }
    }

    /// Ends every session, and returns when all they held is given back.
    pub async fn end(&self) {
        self.sessions.end().await;
    }

    /// Answers a request. It ends, also in the middle of its answer, with its caller's credential.
    pub async fn handle(&self, request: Request<ByteStream>) -> Answer {
        let (parts, body) = request.into_parts();
        let Some(caller) = parts.extensions.get::<Caller>().cloned() else {
            return refused(&Error::internal("a request without its caller"), None);
        };
        let ended = self.host.ended(&caller);
        let answer = async {
            match parts.method {
                Method::POST => self.post(parts, body, &caller).await,
                Method::GET => self.get(parts, &caller).await,
                Method::DELETE => self.delete(&parts, &caller).await,
                _ => Ok(refuse::method(&parts.method)),
            }
        };
        tokio::select! {
            answer = answer => until(answer.unwrap_or_else(|answer| *answer), ended),
            () = ended.cancelled() => refused(&pinfold_auth::unauthenticated("it has ended"), None),
        }
    }

    async fn post(&self, mut parts: Parts, body: ByteStream, caller: &Caller) -> Served {
        head::post(&parts.headers)?;
        let text = head::collect(&parts.headers, body)
            .await
            .map_err(|error| Box::new(refused(&error, None)))?;
        let message = message::parse(&text)
            .map_err(|error| Box::new(refuse::malformed(error, message::id_of(&text))))?;
        let id = match &message {
            JsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let no = |error: &Error| Box::new(refused(error, id.clone()));
        head::version(&parts.headers, &message).map_err(|error| no(&error))?;
        if is_initialize(&message) {
            self.admit(caller, &message).await?;
            return self.begin(parts, text, &message, caller).await.map_err(|error| no(&error));
        }
        let Some(session) = self.find(&parts.headers, caller)? else {
            if !head::stands_alone(&parts.headers, &message) {
                return Err(Box::new(refuse::session_required(id)));
            }
            self.admit(caller, &message).await?;
            return Ok(self.alone(parts, text, caller).await);
        };
        session.touch();
        self.admit(caller, &message).await?;
        let answer = match &message {
            JsonRpcMessage::Request(_) => {
                Some(session.streams.open(&message).map_err(|error| no(&error))?)
            }
            _ => None,
        };
        if let Some(opened) = &answer {
            parts.extensions.insert(opened.hangup());
        }
        let doorway = Doorway::within(Arc::clone(&session), answer);
        Ok(self.within(parts, text, &session, doorway, caller).await)
    }

    async fn admit(
        &self,
        caller: &Caller,
        message: &ClientJsonRpcMessage,
    ) -> Result<(), Box<Answer>> {
        self.host.admit(caller, message).await.map_err(|refusal| {
            let id = match message {
                JsonRpcMessage::Request(request) => Some(request.id.clone()),
                _ => None,
            };
            Box::new(refuse::refusal(&refusal, id))
        })
    }

    /// The session that a request names, which is its caller's own.
    fn find(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Option<Arc<Session>>, Box<Answer>> {
        let Some(name) = headers.get(head::SESSION) else { return Ok(None) };
        let found = name.to_str().ok().and_then(|id| self.sessions.find(id, caller));
        found.map(Some).ok_or_else(|| Box::new(unknown_session()))
    }

    /// A request that begins a session.
    async fn begin(
        &self,
        parts: Parts,
        text: Bytes,
        message: &ClientJsonRpcMessage,
        caller: &Caller,
    ) -> Result<Answer> {
        if self.stop.is_cancelled() {
            let error = Error::new(ErrorCode::Unavailable, "the server is leaving");
            return Err(error.hint("try again in a moment"));
        }
        let place = self.sessions.place(Owner::of(caller))?;
        let client = client_of(message);
        let lease = self.host.open(caller, &client).await?;
        let ended = if place.owner().ends_with_credential() {
            self.host.ended(caller)
        } else {
            CancellationToken::new()
        };
        let (session, transport) = place.fill(lease, ended)?;
        // Whoever goes before the answer never learns the id.
        let abandoned = session.end.clone().drop_guard();
        let doorway = Doorway::begins(Arc::clone(&session), transport);
        let answer = self.within(parts, text, &session, doorway, caller).await;
        if answer.headers().contains_key(head::SESSION) {
            abandoned.disarm();
        }
        Ok(answer)
    }

    async fn within(
        &self,
        parts: Parts,
        text: Bytes,
        session: &Arc<Session>,
        doorway: Doorway,
        caller: &Caller,
    ) -> Answer {
        let Some(lease) = self.sessions.lease(session.id()) else { return unknown_session() };
        let caller = self.host.within(&lease, caller);
        let (host, of) = (Arc::clone(&self.host), lease);
        let service = StreamableHttpService::new(
            move || Ok(host.handler(Some(&of), None)),
            Arc::new(doorway),
            config(&session.end),
        );
        speak(service, parts, text, caller).await
    }

    /// A request of a revision without sessions.
    async fn alone(&self, parts: Parts, text: Bytes, caller: &Caller) -> Answer {
        let (host, who) = (Arc::clone(&self.host), caller.clone());
        let service = StreamableHttpService::new(
            move || Ok(host.handler(None, Some(&who))),
            Arc::new(Doorway::alone()),
            config(&CancellationToken::new()),
        );
        speak(service, parts, text, caller.clone()).await
    }

    async fn get(&self, parts: Parts, caller: &Caller) -> Served {
        head::get(&parts.headers)?;
        let Some(session) = self.find(&parts.headers, caller)? else {
            return Err(Box::new(refuse::session_required(None)));
        };
        let Some(lease) = self.sessions.lease(session.id()) else {
            return Err(Box::new(unknown_session()));
        };
        let attending = lease.attend(caller).map_err(|_| Box::new(unknown_session()))?;
        let listening = session.listening();
        let doorway = Doorway::within(Arc::clone(&session), None);
        let answer = self.within(parts, Bytes::new(), &session, doorway, caller).await;
        Ok(answer.map(|body| {
            let stop = self.stop.clone();
            let events = BodyStream::new(body).take_until(async move { stop.cancelled().await });
            // What it holds goes with the connection.
            let held = (attending, listening);
            StreamBody::new(events.map(move |event| {
                let _held = &held;
                event
            }))
            .boxed_unsync()
        }))
    }

    async fn delete(&self, parts: &Parts, caller: &Caller) -> Served {
        let Some(session) = self.find(&parts.headers, caller)? else {
            return Err(Box::new(refuse::session_required(None)));
        };
        session.end.cancel();
        session.ended.cancelled().await;
        let mut answer = Response::new(Full::default().boxed_unsync());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }
}

type Served = Result<Answer, Box<Answer>>;

/// How the SDK's transport is set up. Hosts, origins and sizes are judged before it.
fn config(end: &CancellationToken) -> StreamableHttpServerConfig {
    StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_sse_retry(None)
        .with_json_response(true)
        .with_max_request_body_bytes(usize::MAX)
        .with_cancellation_token(end.clone())
}

/// Lets the SDK answer.
async fn speak<S>(
    service: StreamableHttpService<S, Doorway>,
    mut parts: Parts,
    text: Bytes,
    caller: Caller,
) -> Answer
where
    S: rmcp::ServerHandler + Send + 'static,
{
    parts.extensions.insert(caller);
    // The SDK may answer in a task of the session's.
    parts.extensions.insert(tracing::Span::current());
    let request = Request::from_parts(parts, Full::new(text));
    service.handle(request).await.map(BodyExt::boxed_unsync)
}

/// Ends an answer with the credential that asked for it.
fn until(answer: Answer, ended: CancellationToken) -> Answer {
    let streams = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !streams {
        return answer;
    }
    answer.map(|body| {
        let events = BodyStream::new(body).take_until(async move { ended.cancelled().await });
        StreamBody::new(events).boxed_unsync()
    })
}

fn is_initialize(message: &ClientJsonRpcMessage) -> bool {
    matches!(
        message,
        JsonRpcMessage::Request(request)
            if matches!(request.request, ClientRequest::InitializeRequest(_))
    )
}

/// What a client calls itself, as far as it can be shown.
fn client_of(message: &ClientJsonRpcMessage) -> String {
    const MOST: usize = 100;
    let JsonRpcMessage::Request(request) = message else { return String::new() };
    let ClientRequest::InitializeRequest(initialize) = &request.request else {
        return String::new();
    };
    let info = &initialize.params.client_info;
    let mut name: String = format!("{} {}", info.name, info.version)
        .chars()
        .filter(|char| !char.is_control())
        .collect();
    let mut end = name.len().min(MOST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}
