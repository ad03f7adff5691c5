//! Connections that the operator asks for by name: a command's own connection to the server it
//! was told to use. The destination comes from the command line or its environment, never from a
//! request, so no class of address is refused; names are still resolved here and by us, because a
//! static binary has no other resolver.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use pinfold_types::config::Host;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    error::EgressError,
    resolve::{Resolve, System},
};

/// Most addresses of one name that are tried.
const MAX_TRIED: usize = 8;

/// Connects to a server of the operator; `limit` is for the name and for each address.
///
/// # Errors
/// [`EgressError::Unresolved`] when the name has no address, [`EgressError::Connect`] with the
/// last failure when none of them answers, [`EgressError::Timeout`] when the name takes too long.
pub async fn dial(host: &Host, port: u16, limit: Duration) -> Result<TcpStream, EgressError> {
    let addresses = match host {
        Host::Address(address) => vec![*address],
        // RFC 6761 §6.3: never asked of a server.
        Host::Name(_) if host.is_loopback() => {
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        }
        Host::Name(name) => {
            let system = System::default();
            let resolved =
                timeout(limit, system.resolve(name)).await.map_err(|_| EgressError::Timeout {
                    host: host.to_string(),
                    what: "resolve",
                    limit_ms: limit.as_millis(),
                })?;
            resolved.map_err(|detail| EgressError::Unresolved { host: host.to_string(), detail })?
        }
    };
    let mut last = (None, io::Error::from(io::ErrorKind::AddrNotAvailable));
    for address in addresses.into_iter().take(MAX_TRIED) {
        match timeout(limit, TcpStream::connect(SocketAddr::new(address, port))).await {
            Ok(Ok(stream)) => {
                // Keystrokes should not wait; a refusal of the option costs only time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = (Some(address), error),
            Err(_) => last = (Some(address), io::ErrorKind::TimedOut.into()),
        }
    }
    let (address, source) = last;
    Err(EgressError::Connect { host: host.to_string(), address, source })
}
