//! TCP addresses, plain or with TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pinfold_types::{Error, Result};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{
    EXHAUSTED, Peer, Shared,
    connection::{Line, refuse, serve},
    places::{Place, Places, full},
};

/// A TLS handshake must be done this soon.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// A silent peer is asked this often whether it is there.
const PROBE: Duration = Duration::from_secs(30);
/// As many questions without an answer end the connection.
const PROBES: u32 = 4;

/// A TCP address that is listened on.
pub struct Tcp {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tcp")
            .field("listener", &self.listener)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

impl Tcp {
    /// Serves this bound socket, with TLS where a configuration of it is given.
    ///
    /// # Errors
    /// When the socket cannot be given to the runtime.
    pub fn new(listener: std::net::TcpListener, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        listener.set_nonblocking(true).map_err(Error::internal)?;
        let listener = TcpListener::from_std(listener).map_err(Error::internal)?;
        Ok(Self { listener, tls: tls.map(TlsAcceptor::from) })
    }

    /// Accepts until the server stops.
    pub(super) async fn accept(self, shared: Shared, places: Places) {
        loop {
            let (stream, address) = tokio::select! {
                () = shared.stop.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a TCP connection could not be accepted");
                        tokio::time::sleep(EXHAUSTED).await;
                        continue;
                    }
                },
            };
            let peer = Peer::tcp(address, self.tls.is_some());
            match places.take_for(address.ip().to_canonical()) {
                Some(place) => {
                    let work = welcome(stream, peer, self.tls.clone(), shared.clone(), place);
                    shared.calls.spawn(work);
                }
                None => self.turn_away(stream, &shared, full(&places)),
            }
        }
    }

    /// Says that there is no place. Over TLS even that would cost a handshake: the connection is
    /// cut.
    fn turn_away(&self, stream: TcpStream, shared: &Shared, error: Error) {
        tracing::debug!("{error}");
        if self.tls.is_none()
            && let Ok(permit) = Arc::clone(&shared.refusals).try_acquire_owned()
        {
            shared.calls.spawn(refuse(stream, error, shared.metrics.clone(), permit));
        }
    }
}

/// Shakes hands where that is due, and serves.
async fn welcome(
    stream: TcpStream,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    shared: Shared,
    place: Place,
) {
    let local = match prepare(&stream) {
        Ok(local) => local,
        Err(error) => return tracing::debug!(%error, "a connection ended at once"),
    };
    let line = Line { peer, local: Some(local), guard: shared.hold(place) };
    let Some(tls) = tls else {
        return serve(stream, shared.router, line, shared.stop, true).await;
    };
    let shaking = tokio::time::timeout(HANDSHAKE_WAIT, tls.accept(stream));
    let shaken = tokio::select! {
        () = shared.stop.cancelled() => return,
        shaken = shaking => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => serve(stream, shared.router, line, shared.stop, true).await,
        Ok(Err(error)) => tracing::debug!(?peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(?peer, "a TLS handshake took too long"),
    }
}

/// Small messages leave at once, and a peer that is gone is noticed. Gives our own end.
fn prepare(stream: &TcpStream) -> std::io::Result<SocketAddr> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    stream.local_addr()
}
