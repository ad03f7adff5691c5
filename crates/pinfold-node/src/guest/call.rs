//! One call: its events, its credit, its end.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use pinfold_proto::{Credit, FrameError, Kind, Receipt, flow};
use pinfold_types::{Error, ErrorCode};
use serde::de::DeserializeOwned;

use super::link::{Link, Users, locked};

/// Messages of one call that wait. Guests send few: what comes in numbers travels as data.
const MAX_MESSAGES: usize = 256;

/// What the guest did wrong.
#[derive(Debug)]
pub(super) enum Fault {
    Frame(FrameError),
    Order(&'static str),
}

/// What a call hears.
#[derive(Debug)]
pub(super) enum Event {
    Message(Bytes),
    Data(Kind, Bytes),
    /// Last: the reply.
    Reply(Bytes),
    /// Last: why there is none.
    Failed(Error),
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    messages: usize,
    receipt: Receipt,
    credit: Credit,
    ended: bool,
    listener: Option<Waker>,
    sender: Option<Waker>,
}

/// What the reading task and the caller share.
#[derive(Debug, Default)]
pub(super) struct CallState(Mutex<Inner>);

impl CallState {
    pub(super) fn take(&self, id: u32, kind: Kind, mut payload: Bytes) -> Result<(), Fault> {
        let mut inner = locked(&self.0);
        match kind {
            Kind::Data0 | Kind::Data1 | Kind::Data2 => {
                // The end of a direction is not charged: it comes once, and `ended` counts it.
                if payload.is_empty() {
                    if inner.messages >= MAX_MESSAGES {
                        return Err(Fault::Order("too many ends"));
                    }
                    inner.messages += 1;
                } else {
                    inner.receipt.arrived(id, payload.len()).map_err(Fault::Frame)?;
                }
                inner.events.push_back(Event::Data(kind, payload));
            }
            Kind::Message => {
                if inner.messages >= MAX_MESSAGES {
                    return Err(Fault::Order("too many messages"));
                }
                inner.messages += 1;
                inner.events.push_back(Event::Message(payload));
            }
            Kind::Window => {
                let amount = payload
                    .try_get_u32()
                    .map_err(|_| Fault::Frame(FrameError::Window { stream: id }))?;
                inner.credit.give(id, amount).map_err(Fault::Frame)?;
                if let Some(waker) = inner.sender.take() {
                    waker.wake();
                }
                return Ok(());
            }
            Kind::Close => inner.events.push_back(Event::Reply(payload)),
            Kind::Reset => inner.events.push_back(Event::Failed(failure(&payload))),
            _ => return Err(Fault::Order("a frame that only hosts send")),
        }
        if matches!(kind, Kind::Close | Kind::Reset) {
            inner.ended = true;
            if let Some(waker) = inner.sender.take() {
                waker.wake();
            }
        }
        if let Some(waker) = inner.listener.take() {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn fail(&self, error: Error) {
        let mut inner = locked(&self.0);
        if !inner.ended {
            inner.ended = true;
            inner.events.push_back(Event::Failed(error));
        }
        for waker in [inner.listener.take(), inner.sender.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// The error in a reset. The guest's words are data: only their shape is trusted.
fn failure(payload: &[u8]) -> Error {
    serde_json::from_slice(payload).unwrap_or_else(|_| {
        Error::new(ErrorCode::Upstream, "the workspace's guest refused without a reason")
    })
}

/// A call in progress. Dropping it takes it back.
#[derive(Debug)]
pub(super) struct Call {
    link: Arc<Users>,
    id: u32,
    state: Arc<CallState>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.link.forget(self.id);
        // Whoever still holds a sender learns of it.
        self.state.fail(Error::new(ErrorCode::Cancelled, "the call was taken back"));
    }
}

/// Sends on a call, also after it was handed elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    link: Arc<Link>,
    id: u32,
    state: Arc<CallState>,
}

impl Call {
    pub(super) fn new(link: Arc<Users>, id: u32, state: Arc<CallState>) -> Self {
        Self { link, id, state }
    }

    pub(super) fn sender(&self) -> Sender {
        Sender { link: Arc::clone(&**self.link), id: self.id, state: Arc::clone(&self.state) }
    }

    /// The next event; `None` after the last. One task at a time.
    pub(super) fn poll_event(&self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let (event, back) = {
            let mut inner = locked(&self.state.0);
            let Some(event) = inner.events.pop_front() else {
                if inner.ended {
                    return Poll::Ready(None);
                }
                inner.listener = Some(context.waker().clone());
                return Poll::Pending;
            };
            let mut back = None;
            match &event {
                Event::Data(_, bytes) if !bytes.is_empty() => {
                    let drained = inner.events.is_empty();
                    back = inner.receipt.consumed(flow::cost(bytes.len()), drained);
                }
                Event::Data(..) | Event::Message(_) => inner.messages -= 1,
                Event::Reply(_) | Event::Failed(_) => {}
            }
            (event, back.filter(|_| !inner.ended))
        };
        if let Some(amount) = back {
            self.link.push_window(self.id, amount);
        }
        Poll::Ready(Some(event))
    }

    pub(super) async fn event(&self) -> Option<Event> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// The first message, for calls that begin with one.
    pub(super) async fn message<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match self.event().await {
            Some(Event::Message(text)) => parse(&text),
            Some(Event::Failed(error)) => Err(error),
            _ => Err(out_of_order()),
        }
    }

    /// The reply. Data before it is dropped.
    pub(super) async fn reply<T: DeserializeOwned>(&self) -> Result<T, Error> {
        loop {
            match self.event().await {
                Some(Event::Reply(text)) => return parse(&text),
                Some(Event::Failed(error)) => return Err(error),
                Some(Event::Message(_) | Event::Data(..)) => {}
                None => return Err(out_of_order()),
            }
        }
    }
}

impl Sender {
    /// Sends as much of `data` as may go now and takes it off the front, once any may. One task
    /// at a time.
    pub(super) fn poll_send(
        &self,
        context: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, Error>> {
        std::task::ready!(self.link.poll_room(context));
        let now = {
            let mut inner = locked(&self.state.0);
            if inner.ended {
                return Poll::Ready(Err(Error::new(
                    ErrorCode::Conflict,
                    "nobody inside takes these bytes any more",
                )));
            }
            let Some(now) = inner.credit.room(data.len()) else {
                inner.sender = Some(context.waker().clone());
                return Poll::Pending;
            };
            inner.credit.take(now);
            now
        };
        self.link.push_data(self.id, Kind::Data0, data.split_to(now));
        Poll::Ready(Ok(now))
    }

    pub(super) async fn send(&self, mut data: Bytes) -> Result<(), Error> {
        while !data.is_empty() {
            poll_fn(|context| self.poll_send(context, &mut data)).await?;
        }
        Ok(())
    }

    /// No more bytes come.
    pub(super) fn end(&self) {
        self.quick(|sender| sender.link.push_data(sender.id, Kind::Data0, Bytes::new()));
    }

    pub(super) async fn tell(&self, message: &impl serde::Serialize) {
        poll_fn(|context| self.link.poll_room(context)).await;
        // Messages are our own enums, which are always JSON.
        let text = serde_json::to_vec(message).unwrap_or_default();
        self.quick(|sender| sender.link.push_text(sender.id, Kind::Message, &text));
    }

    fn quick(&self, push: impl FnOnce(&Self)) {
        if !locked(&self.state.0).ended {
            push(self);
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| {
        Error::new(ErrorCode::Upstream, "the workspace's guest answered nonsense").context(error)
    })
}

pub(super) fn out_of_order() -> Error {
    Error::new(ErrorCode::Upstream, "the workspace's guest answered out of order")
}
