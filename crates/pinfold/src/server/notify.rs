//! Readiness for systemd (`sd_notify(3)`): one datagram to `$NOTIFY_SOCKET`.

use std::os::unix::{ffi::OsStrExt, net::UnixDatagram};

/// Sends a state such as `READY=1`; nothing when nobody asked for it.
pub(super) fn send(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let sent = if let Some(name) = path.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        std::os::unix::net::SocketAddr::from_abstract_name(name)
            .and_then(|address| socket.send_to_addr(state.as_bytes(), &address))
    } else {
        socket.send_to(state.as_bytes(), &path)
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
