//! A command's stream.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use pinfold_proto::{ExecControl, ExecStarted, Kind, Request};
use pinfold_types::{
    Error, ErrorCode, ExecId, Result,
    exec::{ExecResult, TtySize, check_tty},
};
use tokio::sync::Mutex;

use super::{
    Guest,
    call::{Call, Event, Sender, out_of_order, parse},
    link::{self, Users},
};

/// What a command's stream brings.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecEvent {
    /// Output. With a terminal, all of it.
    Stdout(Bytes),
    /// Error output.
    Stderr(Bytes),
    /// It ended. Last.
    Exited(ExecResult),
    /// The stream cannot go on; the command may. Last.
    Failed(Error),
}

/// A command's output and end. Dropping it detaches: the command goes on, and a foreground one
/// waits once it has written a mebibyte that nobody took.
pub struct ExecStream {
    /// Handle for attach and signal.
    pub exec_id: ExecId,
    /// Process id inside; 0 when it could not be started.
    pub pid: i32,
    /// Offset of the next output byte, over both outputs together.
    pub offset: u64,
    /// Bytes that were asked for and are no longer held; grows when this reader is too slow for a
    /// background command.
    pub lost_bytes: u64,
    call: Option<Call>,
    first: VecDeque<ExecEvent>,
    input: ExecHandle,
}

impl fmt::Debug for ExecStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecStream")
            .field("exec_id", &self.exec_id)
            .field("pid", &self.pid)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// A command's input. Clones share it; it does not keep the stream open.
#[derive(Clone, Debug)]
pub struct ExecHandle(Arc<Line>);

#[derive(Debug)]
struct Line {
    /// Replaced when the stream goes on over another channel.
    sender: RwLock<Sender>,
    turn: Mutex<()>,
    /// Bytes were given to a channel: whether they arrived is not known when it ends.
    fed: AtomicBool,
    ended: AtomicBool,
}

impl ExecHandle {
    fn new(sender: Sender) -> Self {
        Self(Arc::new(Line {
            sender: RwLock::new(sender),
            turn: Mutex::default(),
            fed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }))
    }

    fn sender(&self) -> Sender {
        self.0.sender.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends over another channel from now on, beginning with the end if that was said.
    fn move_to(&self, sender: Sender) {
        if self.0.ended.load(Ordering::Acquire) {
            sender.end();
        }
        *self.0.sender.write().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    /// Sends bytes to standard input, waiting while the command does not read. What goes to a
    /// command without open input is dropped inside.
    ///
    /// # Errors
    /// `conflict` when the stream has ended.
    pub async fn write(&self, data: Bytes) -> Result<()> {
        let _turn = self.0.turn.lock().await;
        self.0.fed.store(true, Ordering::Release);
        self.sender().send(data).await
    }

    /// Ends standard input, after what was written.
    ///
    /// # Errors
    /// None today; the guest learns of it when it can.
    pub async fn eof(&self) -> Result<()> {
        let _turn = self.0.turn.lock().await;
        self.0.ended.store(true, Ordering::Release);
        self.sender().end();
        Ok(())
    }

    /// Gives the terminal a new size.
    ///
    /// # Errors
    /// `invalid_argument` for a size no terminal has.
    pub async fn resize(&self, size: TtySize) -> Result<()> {
        check_tty(size)?;
        self.sender().tell(&ExecControl::Resize { size }).await;
        Ok(())
    }

    /// Signals the process group; one that has ended is left alone.
    ///
    /// # Errors
    /// None today.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        self.sender().tell(&ExecControl::Signal { signal }).await;
        Ok(())
    }
}

impl ExecStream {
    pub(super) async fn open(
        link: &Arc<Users>,
        exec_id: ExecId,
        request: &Request,
    ) -> Result<Self> {
        let call = link::open(link, request).await?;
        let mut first = VecDeque::new();
        let started = match call.event().await {
            Some(Event::Message(text)) => parse(&text)?,
            // Never started: the result is all there is.
            Some(Event::Reply(text)) => {
                first.push_back(ExecEvent::Exited(parse(&text)?));
                ExecStarted::default()
            }
            Some(Event::Failed(error)) => return Err(error),
            Some(Event::Data(..)) | None => return Err(out_of_order()),
        };
        let ExecStarted { pid, offset, lost_bytes } = started;
        let input = ExecHandle::new(call.sender());
        Ok(Self { exec_id, pid, offset, lost_bytes, call: Some(call), first, input })
    }

    /// Goes on over another channel where this one ended, if nothing is lost between: all output
    /// since then is held, and no input was on its way.
    pub(crate) async fn resume(&mut self, link: &Guest) -> Result<()> {
        let lost = |what| Error::new(ErrorCode::Unavailable, format!("{what} may be lost"));
        if self.input.0.fed.load(Ordering::Acquire) {
            return Err(lost("input"));
        }
        let again = link.attach(self.exec_id, Some(self.offset)).await?;
        if again.lost_bytes > 0 {
            return Err(lost("output"));
        }
        self.input.move_to(again.input.sender());
        (self.call, self.first) = (again.call, again.first);
        Ok(())
    }

    /// What goes in.
    pub fn input(&self) -> ExecHandle {
        self.input.clone()
    }

    /// The next event; `None` after the last. Dropping the future loses nothing. Taking an event
    /// is what lets a foreground command write more.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        if let Some(event) = self.first.pop_front() {
            self.call = None;
            return Some(event);
        }
        loop {
            let event = self.call.as_ref()?.event().await;
            let event = match event {
                Some(Event::Data(kind, bytes)) => {
                    // An empty piece says nothing here.
                    if bytes.is_empty() {
                        continue;
                    }
                    self.offset += bytes.len() as u64;
                    match kind {
                        Kind::Data2 => ExecEvent::Stderr(bytes),
                        _ => ExecEvent::Stdout(bytes),
                    }
                }
                Some(Event::Message(text)) => {
                    if let Ok(ExecControl::Lost { bytes }) = serde_json::from_slice(&text) {
                        self.lost_bytes = self.lost_bytes.saturating_add(bytes);
                        self.offset = self.offset.saturating_add(bytes);
                    }
                    continue;
                }
                Some(Event::Reply(text)) => match parse(&text) {
                    Ok(result) => ExecEvent::Exited(result),
                    Err(error) => ExecEvent::Failed(error),
                },
                Some(Event::Failed(error)) => ExecEvent::Failed(error),
                None => ExecEvent::Failed(out_of_order()),
            };
            if matches!(event, ExecEvent::Exited(_) | ExecEvent::Failed(_)) {
                self.call = None;
            }
            return Some(event);
        }
    }
}
