//! One request and what belongs to it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use bytes::{Buf, Bytes};
use pinfold_proto::{Credit, FrameError, Kind, Receipt, flow};
use pinfold_types::Error;
use serde::Serialize;
use tokio::sync::Notify;

use super::{Channel, ChannelError};

/// Most messages of one stream that wait.
const MAX_MESSAGES: usize = 1024;

/// The host ended the stream or the connection: stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// What the host sends on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Bytes.
    Data(Bytes),
    /// No more bytes.
    End,
}

#[derive(Debug, Default)]
pub(super) struct StreamState {
    credit: RefCell<Credit>,
    given: Cell<u64>,
    receipt: RefCell<Receipt>,
    data: RefCell<VecDeque<Bytes>>,
    messages: RefCell<VecDeque<Bytes>>,
    finished: Cell<bool>,
    gone: Cell<bool>,
    credited: Notify,
    arrived: Notify,
    told: Notify,
    ended: Notify,
}

impl StreamState {
    pub(super) fn end(&self) {
        self.gone.set(true);
        for notify in [&self.credited, &self.arrived, &self.told, &self.ended] {
            notify.notify_waiters();
        }
    }

    pub(super) fn data(&self, id: u32, payload: Bytes) -> Result<(), ChannelError> {
        if self.finished.get() {
            return Err(ChannelError::Order("data after its end"));
        }
        if payload.is_empty() {
            self.finished.set(true);
        } else {
            self.receipt.borrow_mut().arrived(id, payload.len())?;
            self.data.borrow_mut().push_back(payload);
        }
        self.arrived.notify_waiters();
        Ok(())
    }

    pub(super) fn credit(&self, id: u32, mut payload: &[u8]) -> Result<(), FrameError> {
        let amount = payload.try_get_u32().map_err(|_| FrameError::Window { stream: id })?;
        self.credit.borrow_mut().give(id, amount)?;
        self.given.set(self.given.get().saturating_add(u64::from(amount)));
        self.credited.notify_waiters();
        Ok(())
    }

    pub(super) fn message(&self, payload: Bytes) -> Result<(), ChannelError> {
        let mut messages = self.messages.borrow_mut();
        if messages.len() >= MAX_MESSAGES {
            return Err(ChannelError::Order("too many messages"));
        }
        messages.push_back(payload);
        self.told.notify_waiters();
        Ok(())
    }
}

/// A stream the host opened. Dropping it ends it.
#[derive(Debug)]
pub struct Stream {
    channel: Channel,
    id: u32,
    state: Rc<StreamState>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.channel.forget(self.id);
    }
}

impl Stream {
    pub(super) fn new(channel: Channel, id: u32, state: Rc<StreamState>) -> Self {
        Self { channel, id, state }
    }

    /// The connection it is on.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the host has ended it.
    pub fn is_gone(&self) -> bool {
        self.state.gone.get()
    }

    /// Waits until the host has ended it.
    pub async fn gone(&self) {
        if !self.is_gone() {
            self.state.ended.notified().await;
        }
    }

    /// Sends a message.
    pub fn message(&self, message: &impl Serialize) {
        if !self.is_gone() {
            self.channel.push(self.id, Kind::Message, message);
        }
    }

    /// Sends the reply and ends the stream.
    pub fn close(self, reply: &impl Serialize) {
        if !self.is_gone() {
            self.channel.push(self.id, Kind::Close, reply);
        }
    }

    /// Ends the stream with an error.
    pub fn fail(self, error: &Error) {
        if !self.is_gone() {
            self.channel.push(self.id, Kind::Reset, error);
        }
    }

    /// Replies with one or the other, once the queue has room.
    pub async fn answer<T: Serialize>(self, result: Result<T, Error>) {
        self.channel.has_room().await;
        match result {
            Ok(reply) => self.close(&reply),
            Err(error) => self.fail(&error),
        }
    }

    /// Sends one frame with as much of `data` as credit and queue allow, once they allow any, and
    /// takes it off the front. How many bytes.
    ///
    /// # Errors
    /// [`Gone`] when the host has ended the stream.
    pub async fn send_some(&self, kind: Kind, data: &mut Bytes) -> Result<usize, Gone> {
        loop {
            self.channel.has_room().await;
            if self.is_gone() {
                return Err(Gone);
            }
            let room = self.state.credit.borrow().room(data.len());
            if let Some(now) = room {
                self.state.credit.borrow_mut().take(now);
                self.channel.push_data(self.id, kind, data.split_to(now));
                return Ok(now);
            }
            self.state.credited.notified().await;
        }
    }

    /// Sends all of `data`.
    ///
    /// # Errors
    /// [`Gone`] when the host has ended the stream.
    pub async fn send(&self, kind: Kind, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            self.send_some(kind, &mut data).await?;
        }
        Ok(())
    }

    /// Sends `data`, at most 128 KiB, as one frame that is not split.
    ///
    /// # Errors
    /// [`Gone`] when the host has ended the stream.
    pub async fn send_whole(&self, kind: Kind, data: Bytes) -> Result<(), Gone> {
        loop {
            self.channel.has_room().await;
            if self.is_gone() {
                return Err(Gone);
            }
            let room = self.state.credit.borrow().room(data.len());
            if room == Some(data.len()) {
                self.state.credit.borrow_mut().take(data.len());
                self.channel.push_data(self.id, kind, data);
                return Ok(());
            }
            self.state.credited.notified().await;
        }
    }

    /// Says that no more data comes in this direction.
    pub fn end_data(&self) {
        if !self.is_gone() {
            self.channel.push_data(self.id, Kind::Data0, Bytes::new());
        }
    }

    /// Credit that the host has given back since the stream began, as cost.
    pub fn acknowledged(&self) -> u64 {
        self.state.given.get()
    }

    /// Waits for more of it.
    pub async fn acknowledgement(&self) {
        self.state.credited.notified().await;
    }

    /// Waits for data. The credit it cost stays used until [`Self::consumed`].
    ///
    /// # Errors
    /// [`Gone`] when the host has ended the stream.
    pub async fn receive(&self) -> Result<Incoming, Gone> {
        loop {
            if self.is_gone() {
                return Err(Gone);
            }
            if let Some(data) = self.state.data.borrow_mut().pop_front() {
                return Ok(Incoming::Data(data));
            }
            if self.state.finished.get() {
                return Ok(Incoming::End);
            }
            self.state.arrived.notified().await;
        }
    }

    /// Data that is here already.
    pub fn receive_now(&self) -> Option<Bytes> {
        self.state.data.borrow_mut().pop_front()
    }

    /// Gives back the credit of one received piece of `length` bytes.
    pub fn consumed(&self, length: usize) {
        let drained = self.state.data.borrow().is_empty();
        let back = self.state.receipt.borrow_mut().consumed(flow::cost(length), drained);
        if let Some(amount) = back {
            self.channel.push_window(self.id, amount);
        }
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`Gone`] when the host has ended the stream.
    pub async fn told(&self) -> Result<Bytes, Gone> {
        loop {
            if self.is_gone() {
                return Err(Gone);
            }
            if let Some(message) = self.state.messages.borrow_mut().pop_front() {
                return Ok(message);
            }
            self.state.told.notified().await;
        }
    }
}
