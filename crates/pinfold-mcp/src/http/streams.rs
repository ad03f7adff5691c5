//! What is said to one client, kept until it surely has it.
//!
//! Every request has a stream of its own for its answer and what comes before it; whatever belongs
//! to no request goes on the stream that the client listens to with GET. Events are numbered, so
//! that a client whose connection broke reads on where it was. A client that reads slowly, or not
//! at all, holds nobody up: it loses progress, never an answer while there is room for it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::Stream;
use pinfold_types::{Error, ErrorCode, Result};
use rmcp::{
    model::{
        ClientJsonRpcMessage, ClientNotification, GetExtensions, GetMeta, JsonRpcMessage,
        ProgressToken, RequestId, ServerJsonRpcMessage, ServerNotification,
    },
    service::OriginatingRequestId,
    transport::streamable_http_server::session::ServerSseMessage,
};
use tokio::{sync::watch, time::Instant};

use crate::limits::{KEPT, MAX_EVENTS, MAX_HELD_BYTES, MAX_STREAMS};

/// The stream of what belongs to no request.
const ALONE: u64 = 0;
/// How soon a client whose connection broke may come back.
const RETRY: Duration = Duration::from_secs(1);

/// All streams of a session.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: BTreeMap<u64, Kept>,
    requests: HashMap<RequestId, u64>,
    tokens: HashMap<ProgressToken, u64>,
    held_bytes: usize,
    /// Events begin with one that only numbers them (the revision of 2025-11-25 and later).
    primed: bool,
}

/// One stream.
#[derive(Debug)]
struct Kept {
    /// Number of the first event that is still here.
    first: u64,
    events: VecDeque<Event>,
    /// Everything was said.
    done: Option<Instant>,
    request: Option<RequestId>,
    token: Option<ProgressToken>,
    /// Who reads it: the last one that asked.
    reader: u64,
    changed: watch::Sender<()>,
}

#[derive(Clone, Debug)]
struct Event {
    message: Option<Arc<ServerJsonRpcMessage>>,
    bytes: usize,
}

impl Kept {
    fn new(request: Option<RequestId>, token: Option<ProgressToken>) -> Self {
        Self {
            first: 0,
            events: VecDeque::new(),
            done: None,
            request,
            token,
            reader: 0,
            changed: watch::Sender::new(()),
        }
    }

    fn end(&self) -> u64 {
        self.first + u64::try_from(self.events.len()).unwrap_or(u64::MAX)
    }
}

impl State {
    fn push(&mut self, stream: u64, event: Event) {
        let Some(kept) = self.all.get_mut(&stream) else { return };
        self.held_bytes += event.bytes;
        kept.events.push_back(event);
        if kept.events.len() > MAX_EVENTS {
            drop_first(kept, &mut self.held_bytes);
        }
        kept.changed.send_replace(());
        self.make_room(stream);
    }

    /// Forgets what was answered longest ago, then what was said first on the stream that speaks.
    fn make_room(&mut self, speaking: u64) {
        while self.held_bytes > MAX_HELD_BYTES {
            let answered =
                self.all.iter().filter(|(id, kept)| **id != speaking && kept.done.is_some());
            if let Some(oldest) = answered.min_by_key(|(_, kept)| kept.done).map(|(id, _)| *id) {
                self.remove(oldest);
                continue;
            }
            match self.all.get_mut(&speaking) {
                Some(kept) if kept.events.len() > 1 => drop_first(kept, &mut self.held_bytes),
                _ => return,
            }
        }
    }

    fn remove(&mut self, stream: u64) {
        if let Some(kept) = self.all.remove(&stream) {
            self.held_bytes -= kept.events.iter().map(|event| event.bytes).sum::<usize>();
        }
    }

    /// Nothing more is said on a stream; it is kept a while for a client that missed its end.
    fn finish(&mut self, stream: u64) {
        let Some(kept) = self.all.get_mut(&stream) else { return };
        kept.done = Some(Instant::now());
        kept.changed.send_replace(());
        if let Some(request) = kept.request.take() {
            self.requests.remove(&request);
        }
        // A later request may have taken the same token over.
        if let Some(token) = kept.token.take()
            && self.tokens.get(&token) == Some(&stream)
        {
            self.tokens.remove(&token);
        }
        self.make_room(stream);
    }

    fn forget_old(&mut self) {
        let old: Vec<u64> = self
            .all
            .iter()
            .filter(|(_, kept)| kept.done.is_some_and(|done| done.elapsed() > KEPT))
            .map(|(id, _)| *id)
            .collect();
        for stream in old {
            self.remove(stream);
        }
    }

    /// Where a message of the server belongs, and whether it is the last there; `None` when nobody
    /// waits for it any more.
    fn place(&self, message: &ServerJsonRpcMessage) -> Option<(u64, bool)> {
        match message {
            JsonRpcMessage::Response(response) => Some((*self.requests.get(&response.id)?, true)),
            JsonRpcMessage::Error(error) => Some((*self.requests.get(error.id.as_ref()?)?, true)),
            JsonRpcMessage::Request(request) => {
                let cause = request.request.extensions().get::<OriginatingRequestId>();
                let stream = cause.and_then(|cause| self.requests.get(&cause.0));
                Some((stream.copied().unwrap_or(ALONE), false))
            }
            JsonRpcMessage::Notification(notification) => match &notification.notification {
                ServerNotification::ProgressNotification(progress) => {
                    Some((*self.tokens.get(&progress.params.progress_token)?, false))
                }
                ServerNotification::CancelledNotification(_) => None,
                _ => Some((ALONE, false)),
            },
        }
    }
}

fn drop_first(kept: &mut Kept, held_bytes: &mut usize) {
    if let Some(event) = kept.events.pop_front() {
        *held_bytes -= event.bytes;
        kept.first += 1;
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events begin with one that only numbers them, from now on.
    pub(crate) fn prime(&self) {
        self.lock().primed = true;
    }

    /// Requests without an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().requests.len()
    }

    /// The stream for the answer to this request.
    pub(crate) fn open(self: &Arc<Self>, message: &ClientJsonRpcMessage) -> Result<Opened> {
        let JsonRpcMessage::Request(request) = message else {
            return Err(Error::internal("only requests have answers"));
        };
        let mut state = self.lock();
        state.forget_old();
        if state.requests.contains_key(&request.id) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "a request with this id has no answer yet",
            )
            .hint("give each request of a session an id of its own"));
        }
        if state.requests.len() >= MAX_STREAMS {
            let mut error = Error::new(
                ErrorCode::RateLimited,
                format!("{MAX_STREAMS} requests of this session have no answer yet, the most it may have"),
            )
            .hint("wait for one to end; long commands belong into exec_start");
            error.retry_after_ms = Some(1000);
            return Err(error);
        }
        state.next += 1;
        let stream = state.next;
        let token = request.request.get_meta().get_progress_token();
        if let Some(token) = &token {
            state.tokens.insert(token.clone(), stream);
        }
        state.requests.insert(request.id.clone(), stream);
        state.all.insert(stream, Kept::new(Some(request.id.clone()), token));
        if state.primed {
            state.push(stream, Event { message: None, bytes: 0 });
        }
        Ok(Opened { streams: Arc::clone(self), stream, handed_in: false })
    }

    /// Says something to the client.
    pub(crate) fn say(&self, message: ServerJsonRpcMessage) {
        let mut state = self.lock();
        let Some((stream, last)) = state.place(&message) else { return };
        if stream == ALONE {
            state.all.entry(ALONE).or_insert_with(|| Kept::new(None, None));
        }
        let bytes = size(&message);
        state.push(stream, Event { message: Some(Arc::new(message)), bytes });
        if last {
            state.finish(stream);
        }
    }

    /// What the client says may end a stream: nothing answers a request that it cancelled.
    pub(crate) fn hear(&self, message: &ClientJsonRpcMessage) {
        if let JsonRpcMessage::Notification(notification) = message
            && let ClientNotification::CancelledNotification(cancelled) = &notification.notification
            && let Some(request) = &cancelled.params.request_id
        {
            let mut state = self.lock();
            if let Some(stream) = state.requests.get(request).copied() {
                state.finish(stream);
            }
        }
    }

    /// What belongs to no request, from what is still here on.
    pub(crate) fn listen(self: &Arc<Self>) -> impl Stream<Item = ServerSseMessage> + use<> {
        let mut state = self.lock();
        let primed = state.primed;
        let kept = state.all.entry(ALONE).or_insert_with(|| Kept::new(None, None));
        let next = kept.first;
        if primed && kept.events.is_empty() {
            kept.events.push_back(Event { message: None, bytes: 0 });
        }
        drop(state);
        self.read(ALONE, next)
    }

    /// A stream after this event.
    pub(crate) fn resume(
        self: &Arc<Self>,
        last_event: &str,
    ) -> Result<impl Stream<Item = ServerSseMessage> + use<>> {
        let unknown = || Error::new(ErrorCode::NotFound, "there is no such event in this session");
        let (stream, event) = last_event.split_once('-').ok_or_else(unknown)?;
        let stream: u64 = stream.parse().map_err(|_| unknown())?;
        let event: u64 = event.parse().map_err(|_| unknown())?;
        let mut state = self.lock();
        state.forget_old();
        let kept = state.all.get(&stream).ok_or_else(unknown)?;
        if event >= kept.end() {
            return Err(unknown());
        }
        drop(state);
        Ok(self.read(stream, event + 1))
    }

    /// Reads a stream from an event on, in the place of whoever read it before.
    fn read(
        self: &Arc<Self>,
        stream: u64,
        next: u64,
    ) -> impl Stream<Item = ServerSseMessage> + use<> {
        let (reader, changed) = {
            let mut state = self.lock();
            state.all.get_mut(&stream).map_or_else(
                || (0, watch::channel(()).1),
                |kept| {
                    kept.reader += 1;
                    kept.changed.send_replace(());
                    (kept.reader, kept.changed.subscribe())
                },
            )
        };
        let reading = Reading { streams: Arc::clone(self), stream, next, reader, changed };
        futures_util::stream::unfold(reading, Reading::next)
    }
}

/// A stream for an answer. Nothing comes on it when the request never got where it is answered.
#[derive(Debug)]
pub(crate) struct Opened {
    streams: Arc<Streams>,
    stream: u64,
    handed_in: bool,
}

/// Ends the connection of an answer, and not the call: the client asks again, and reads on.
#[derive(Clone, Debug)]
pub struct Hangup {
    streams: Arc<Streams>,
    stream: u64,
}

impl Hangup {
    /// Does it, for who reads now.
    pub fn hang_up(&self) {
        if let Some(kept) = self.streams.lock().all.get_mut(&self.stream) {
            kept.reader += 1;
            kept.changed.send_replace(());
        }
    }
}

impl Opened {
    /// What ends the connection on which it is read.
    pub(crate) fn hangup(&self) -> Hangup {
        Hangup { streams: Arc::clone(&self.streams), stream: self.stream }
    }

    /// Reads it from its beginning, now that the request is handed in.
    pub(crate) fn read(mut self) -> impl Stream<Item = ServerSseMessage> + use<> {
        self.handed_in = true;
        self.streams.read(self.stream, 0)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.handed_in {
            self.streams.lock().finish(self.stream);
        }
    }
}

/// Where somebody is in a stream.
struct Reading {
    streams: Arc<Streams>,
    stream: u64,
    next: u64,
    reader: u64,
    changed: watch::Receiver<()>,
}

/// What there is to read now.
enum Look {
    Event(u64, Event),
    Later,
    End,
}

impl Reading {
    fn look(&mut self) -> Look {
        // Before looking, so that what comes in between is not missed.
        self.changed.mark_unchanged();
        let state = self.streams.lock();
        let Some(kept) = state.all.get(&self.stream).filter(|kept| kept.reader == self.reader)
        else {
            return Look::End;
        };
        let next = self.next.max(kept.first);
        let place = usize::try_from(next - kept.first).unwrap_or(usize::MAX);
        match kept.events.get(place) {
            Some(event) => Look::Event(next, event.clone()),
            None if kept.done.is_some() => Look::End,
            None => Look::Later,
        }
    }

    async fn next(mut self) -> Option<(ServerSseMessage, Self)> {
        loop {
            match self.look() {
                Look::End => return None,
                Look::Event(number, event) => {
                    self.next = number + 1;
                    let mut message = ServerSseMessage::default();
                    message.event_id = Some(format!("{}-{number}", self.stream));
                    message.retry = event.message.is_none().then_some(RETRY);
                    message.message = event.message;
                    return Some((message, self));
                }
                // Its sender went away with the stream.
                Look::Later => {
                    self.changed.changed().await.ok()?;
                }
            }
        }
    }
}

/// Bytes of a message as JSON, counted without writing it anywhere.
fn size(message: &ServerJsonRpcMessage) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Plain data: it can be written.
    let _whole = serde_json::to_writer(&mut count, message);
    count.0
}

#[cfg(test)]
mod tests;
