//! Who is at the other end of a connection.

use std::net::SocketAddr;

use pinfold_auth::PeerCredentials;
use pinfold_types::WorkspaceId;

/// The other end of a connection, in the extensions of each of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine on the unix socket, as the kernel names it.
    Unix(PeerCredentials),
    /// A program inside this workspace, by the workspace's own channel.
    Workspace(WorkspaceId),
    /// Somebody over TCP.
    Tcp {
        /// Canonical: an IPv4 address that arrived as `::ffff:…` is an IPv4 address here.
        address: SocketAddr,
        /// Whether the connection is encrypted.
        tls: bool,
    },
}

impl Peer {
    /// A peer over TCP; the address is made canonical.
    pub fn tcp(address: SocketAddr, tls: bool) -> Self {
        Self::Tcp { address: SocketAddr::new(address.ip().to_canonical(), address.port()), tls }
    }

    /// Whether it is on this machine.
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Workspace(_) => false,
            Self::Tcp { address, .. } => address.ip().is_loopback(),
        }
    }

    /// Whether nobody on the way can listen.
    pub const fn is_private(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Workspace(_) => true,
            Self::Tcp { tls, .. } => *tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_loopback_address_is_local() {
        for (address, local) in [
            ("127.0.0.1:1", true),
            ("127.8.9.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("[::ffff:10.0.0.1]:1", false),
            ("10.0.0.1:1", false),
            ("[::]:1", false),
            ("[::2]:1", false),
        ] {
            let peer = Peer::tcp(address.parse().expect("an address"), false);
            assert_eq!(peer.is_local(), local, "{address}");
        }
    }
}
