//! Bodies as streams: uploads from a blocking writer, replies of one JSON object a line.

use std::io::{self, Write};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pinfold_types::{Error, ErrorCode, Result};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Body, lost};

/// Most bytes of one line of a progress stream.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Bytes gathered before an upload's chunk is handed on.
const CHUNK_BYTES: usize = 256 << 10;

/// A body, and the blocking writer that fills it: at most four chunks lie between them.
pub(crate) fn body_channel() -> (BodyWriter, Body) {
    let (sender, receiver) = mpsc::channel(4);
    (BodyWriter { sender, buffer: BytesMut::with_capacity(CHUNK_BYTES) }, Body::Channel(receiver))
}

/// Writes into an upload from a thread that may block.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl BodyWriter {
    /// Breaks the upload off, so that the server sees that it is not whole.
    pub(crate) fn abort(self, error: io::Error) {
        let _gone = self.sender.blocking_send(Err(error));
    }
}

impl Write for BodyWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK_BYTES));
        self.sender
            .blocking_send(Ok(chunk.freeze()))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the server took no more"))
    }
}

/// A reply of one JSON object a line.
#[derive(Debug)]
pub(crate) struct NdJson {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl NdJson {
    /// Reads lines of this body.
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), ended: false }
    }

    /// The next object, or `None` at the end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if line.is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(Error::internal);
            }
            if self.ended {
                return Ok(None);
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(Error::new(ErrorCode::TooLarge, "a line of the reply is too long"));
            }
            match self.body.frame().await {
                None => {
                    self.ended = true;
                    self.buffer.extend_from_slice(b"\n");
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(lost(&error)),
            }
        }
    }
}
