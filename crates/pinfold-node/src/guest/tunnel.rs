//! A TCP connection inside, as a socket outside.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use pinfold_proto::Request;
use pinfold_types::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    call::{Call, Event, Sender},
    link::{self, Users},
};

/// A connection to a port on the workspace's loopback, or of a program inside to the API's socket.
/// Shutting down the writing side leaves the
/// reading side open; dropping it closes both.
pub struct TcpTunnel {
    call: Call,
    sender: Sender,
    rest: Bytes,
    finished: bool,
    shut: bool,
}

impl fmt::Debug for TcpTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTunnel").field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl TcpTunnel {
    pub(super) async fn open(link: &Arc<Users>, request: &Request) -> Result<Self> {
        let call = link::open(link, request).await?;
        call.message::<()>().await?;
        let sender = call.sender();
        Ok(Self { call, sender, rest: Bytes::new(), finished: false, shut: false })
    }

    /// The next piece that the program inside sent, uncopied; `None` at its end.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        match std::future::poll_fn(|context| self.poll_piece(context)).await {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some(Ok(bytes)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Empty at the end.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes>> {
        if self.rest.has_remaining() {
            return Poll::Ready(Ok(std::mem::take(&mut self.rest)));
        }
        while !self.finished {
            match ready!(self.call.poll_event(context)) {
                Some(Event::Data(_, bytes)) if !bytes.is_empty() => {
                    return Poll::Ready(Ok(bytes));
                }
                Some(Event::Message(_)) => {}
                // The empty piece, the reply, or nothing any more.
                Some(Event::Data(..) | Event::Reply(_)) | None => self.finished = true,
                Some(Event::Failed(error)) => {
                    self.finished = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(Bytes::new()))
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl AsyncRead for TcpTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut piece = ready!(self.poll_piece(context)).map_err(broken)?;
        let now = piece.len().min(buffer.remaining());
        buffer.put_slice(&piece[..now]);
        piece.advance(now);
        self.rest = piece;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpTunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // One copy, of no more than may go in one frame.
        let most = data.len().min(64 << 10);
        let mut piece = Bytes::copy_from_slice(&data[..most]);
        self.sender.poll_send(context, &mut piece).map_err(broken)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.shut, true) {
            self.sender.end();
        }
        Poll::Ready(Ok(()))
    }
}
