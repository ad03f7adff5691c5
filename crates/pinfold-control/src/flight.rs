//! How much work is in flight, so that a server which a command started can leave when there is
//! none.

use std::{
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use crate::service::Held;
use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

/// Counts calls and open streams.
#[derive(Clone, Debug)]
pub struct InFlight {
    count: watch::Sender<usize>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { count: watch::Sender::new(0) }
    }
}

/// One call or stream.
#[derive(Debug)]
pub(crate) struct Flight {
    count: watch::Sender<usize>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

impl InFlight {
    /// Counts until the returned value is dropped.
    pub(crate) fn begin(&self) -> Flight {
        self.count.send_modify(|count| *count += 1);
        Flight { count: self.count.clone() }
    }

    /// Calls and streams now.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Returns when nothing was in flight for as long as `quiet`.
    pub async fn quiet(&self, quiet: Duration) {
        let mut changes = self.count.subscribe();
        loop {
            // The sender is ours, so it cannot be gone.
            let _ = changes.wait_for(|count| *count == 0).await;
            if tokio::time::timeout(quiet, changes.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// A stream or handle that counts as work in flight as long as it is held.
#[derive(Debug)]
pub struct Tracked<T> {
    inner: T,
    held: Held,
}

impl<T> Tracked<T> {
    pub(crate) const fn new(inner: T, held: Held) -> Self {
        Self { inner, held }
    }

    /// The same around what `change` makes of it.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Tracked<U> {
        Tracked { inner: change(self.inner), held: self.held }
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<S: Stream + Unpin> Stream for Tracked<S> {
    type Item = S::Item;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        Pin::new(&mut self.inner).poll_next(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tracked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tracked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_is_counted_from_the_last_end() {
        let flights = InFlight::default();
        let quiet = Duration::from_mins(1);
        let first = flights.begin();
        assert_eq!(flights.count(), 1);
        let started = tokio::time::Instant::now();
        let waiting = tokio::spawn({
            let flights = flights.clone();
            async move {
                flights.quiet(quiet).await;
                tokio::time::Instant::now()
            }
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(first);
        // A short call in the middle of the wait begins it anew.
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(flights.begin());
        let ended = waiting.await.expect("the waiter lives");
        assert_eq!(ended - started, Duration::from_secs(190));
        assert_eq!(flights.count(), 0);
    }
}
