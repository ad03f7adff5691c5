//! From a parsed target to a connected, checked peer.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    addresses::{self, Class},
    config::Exception,
    error::EgressError,
    names,
    resolve::Resolve,
    target::{Host, Target},
    tls,
};

/// Most answers of one name that are looked at; more is not an ordinary name.
const MAX_ANSWERS: usize = 64;

/// A byte stream to a peer.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn denied(target: &Target, why: impl Into<String>) -> EgressError {
    EgressError::Denied { host: target.host().to_string(), why: why.into() }
}

/// What can be said before a name is resolved: its scheme and its name, or its address.
pub(crate) fn check_unresolved(
    target: &Target,
    exception: Option<&Exception>,
) -> Result<(), EgressError> {
    let private = exception.is_some_and(|exception| exception.allow_private);
    let plain = exception.is_some_and(|exception| exception.plain_http);
    if !target.is_https() && !plain {
        return Err(denied(target, "plain HTTP is allowed only where the operator says so"));
    }
    match target.host() {
        Host::Address(address) => check_addresses(target, private, &[*address]),
        Host::Name(name) => match names::refusal(name) {
            Some(why) if !private => Err(denied(target, why)),
            _ => Ok(()),
        },
    }
}

fn check_addresses(
    target: &Target,
    private: bool,
    addresses: &[IpAddr],
) -> Result<(), EgressError> {
    if private {
        return Ok(());
    }
    let own = addresses::own();
    for address in addresses {
        if let Class::Special { what } = addresses::classify(*address) {
            return Err(denied(target, format!("its address is special ({what})")));
        }
        if own.contains(address) {
            return Err(denied(target, "its address is this machine's own"));
        }
    }
    Ok(())
}

/// The addresses of a target, all of which passed.
pub(crate) async fn checked_addresses(
    target: &Target,
    exception: Option<&Exception>,
    resolver: &dyn Resolve,
    limit: Duration,
) -> Result<Vec<IpAddr>, EgressError> {
    check_unresolved(target, exception)?;
    let host = target.host().to_string();
    let private = exception.is_some_and(|exception| exception.allow_private);
    let answers = match target.host() {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) if private && (name == "localhost" || name.ends_with(".localhost")) => {
            // RFC 6761 §6.3: never asked of a server.
            vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]
        }
        Host::Name(name) => timeout(limit, resolver.resolve(name))
            .await
            .map_err(|_| late(target, "resolve", limit))?
            .map_err(|detail| EgressError::Unresolved { host: host.clone(), detail })?,
    };
    if answers.is_empty() {
        return Err(EgressError::Unresolved { host, detail: "no records".into() });
    }
    if answers.len() > MAX_ANSWERS {
        return Err(denied(target, format!("it has more than {MAX_ANSWERS} addresses")));
    }
    check_addresses(target, private, &answers)?;
    Ok(answers)
}

/// Connects to one of the addresses, in order, and speaks TLS where the target asks for it.
pub(crate) async fn connect(
    target: &Target,
    exception: Option<&Exception>,
    addresses: &[IpAddr],
    limit: Duration,
) -> Result<Box<dyn Stream>, EgressError> {
    let host = target.host().to_string();
    let mut last = None;
    for address in addresses {
        let peer = SocketAddr::new(*address, target.port());
        let tcp = match timeout(limit, TcpStream::connect(peer)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(source)) => {
                last = Some((*address, source));
                continue;
            }
            Err(_) => {
                last = Some((*address, io::ErrorKind::TimedOut.into()));
                continue;
            }
        };
        // The kernel's word on whom we talk to: a local redirect would show here.
        match tcp.peer_addr() {
            Ok(reached) if reached.ip() == *address && reached.port() == target.port() => {}
            _ => {
                return Err(EgressError::Denied {
                    host,
                    why: "the connection reached another address than the one checked".into(),
                });
            }
        }
        // Small requests should not wait; a refusal of the option costs only time.
        let _ = tcp.set_nodelay(true);
        if !target.is_https() {
            return Ok(Box::new(tcp));
        }
        let config = tls::config(exception.and_then(|e| e.ca_file.as_deref()))?;
        let name = match target.host() {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| {
                EgressError::Denied { host: host.clone(), why: "it is not a TLS name".into() }
            })?,
            Host::Address(address) => ServerName::IpAddress((*address).into()),
        };
        return match timeout(limit, TlsConnector::from(config).connect(name, tcp)).await {
            Ok(Ok(tls)) => Ok(Box::new(tls)),
            Ok(Err(source)) => Err(EgressError::Tls { host, source }),
            Err(_) => Err(late(target, "set up TLS", limit)),
        };
    }
    let (address, source) = last.map_or_else(
        || (None, io::ErrorKind::AddrNotAvailable.into()),
        |(address, source)| (Some(address), source),
    );
    Err(EgressError::Connect { host, address, source })
}

pub(crate) fn late(target: &Target, what: &'static str, limit: Duration) -> EgressError {
    EgressError::Timeout { host: target.host().to_string(), what, limit_ms: limit.as_millis() }
}
