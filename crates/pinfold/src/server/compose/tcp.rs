//! TCP addresses: which, whether they may be listened on, and the bound sockets.

use std::net::{SocketAddr, TcpListener};

use pinfold_types::{Error, ErrorCode, Result, config::Config};

use crate::args::server::Up;

/// Sockets that wait for connections.
#[derive(Debug, Default)]
pub(super) struct Bound {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Bound {
    /// Where they are.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sockets.
    pub(super) fn into_listeners(self) -> Vec<TcpListener> {
        self.listeners
    }
}

/// The addresses that the command line, or else the configuration, asks for.
pub(super) fn wanted(config: &Config, args: &Up) -> Vec<SocketAddr> {
    if args.listen.is_empty() {
        return config.server.addresses(args.on_demand);
    }
    args.listen.iter().filter_map(|wanted| wanted.0).collect()
}

/// Refuses what would let strangers in: an address beyond loopback without TLS.
pub(super) fn check_encrypted(addresses: &[SocketAddr], tls: bool) -> Result<()> {
    match beyond_loopback(addresses) {
        Some(address) if !tls => Err(Error::new(
            ErrorCode::CannotEnforce,
            format!("{address} can be reached from other machines, and there is no TLS"),
        )
        .hint(
            "write tls = \"local-ca\", or tls_cert and tls_key, into [server]; or listen on \
             127.0.0.1 alone",
        )),
        _ => Ok(()),
    }
}

/// Refuses an address beyond loopback where nobody could have a credential.
pub(super) fn check_credentials(addresses: &[SocketAddr], has_credentials: bool) -> Result<()> {
    match beyond_loopback(addresses) {
        Some(address) if !has_credentials => Err(Error::new(
            ErrorCode::CannotEnforce,
            format!("{address} can be reached from other machines, and nobody has a token"),
        )
        .hint(
            "start it on a terminal, which is shown one, or with --first-token FILE; or make one \
             over the unix socket: pinfold token create NAME",
        )),
        _ => Ok(()),
    }
}

/// The first address that other machines can reach.
fn beyond_loopback(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    addresses.iter().copied().find(|address| !address.ip().to_canonical().is_loopback())
}

/// Binds every address, or none.
pub(super) fn bind(addresses: &[SocketAddr]) -> Result<Bound> {
    let mut bound = Bound::default();
    for address in addresses {
        let failed = |error: std::io::Error| {
            Error::new(ErrorCode::Unavailable, format!("{address} cannot be listened on: {error}"))
                .hint("choose others: pinfold up --listen ADDRESS:PORT, or --listen none")
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        bound.addresses.push(listener.local_addr().map_err(failed)?);
        bound.listeners.push(listener);
    }
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_tls_and_a_token() {
        for (address, local) in [
            ("127.0.0.1:0", true),
            ("127.3.2.1:0", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:0", true),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
            ("[::ffff:0.0.0.0]:0", false),
            ("192.0.2.1:0", false),
            ("[::ffff:192.0.2.1]:0", false),
        ] {
            let addresses = ["127.0.0.1:0", address].map(|text| text.parse().expect("an address"));
            assert_eq!(check_encrypted(&addresses, false).is_ok(), local, "{address}");
            assert_eq!(check_credentials(&addresses, false).is_ok(), local, "{address}");
            assert!(check_encrypted(&addresses, true).is_ok(), "{address}");
            assert!(check_credentials(&addresses, true).is_ok(), "{address}");
        }
    }
}
