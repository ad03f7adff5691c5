//! Descriptors in the event loop.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Watches an owned descriptor, which must be non-blocking already.
///
/// # Errors
/// What `epoll_ctl` says: regular files cannot be watched.
#[expect(
    deprecated,
    reason = "the replacement wants a promise in unsafe code that the value keeps naming one open \
              descriptor; the two types used here own theirs"
)]
pub(crate) fn watched<T: AsRawFd>(owned: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owned, interest)
}
