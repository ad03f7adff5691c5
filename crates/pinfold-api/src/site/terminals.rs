//! Whether a peer may have a terminal (AX-12): on this machine always; from elsewhere only over
//! TLS, and where the configuration says so.

use pinfold_types::{Error, ErrorCode, Result, config::TerminalsConfig};

use crate::listen::Peer;

/// Whether terminals are for the peer of a request; in the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminals {
    allowed: bool,
}

impl Terminals {
    pub(super) const fn of(config: &TerminalsConfig, peer: Peer) -> Self {
        Self { allowed: peer.is_local() || (config.remote && peer.is_private()) }
    }

    /// Refuses a command that asks for one, where none is allowed.
    pub(crate) fn check(self, wanted: bool) -> Result<()> {
        if self.allowed || !wanted {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Forbidden, "terminals are not for other machines")
            .hint("run it without a terminal; terminals.remote allows them, over TLS"))
    }
}

#[cfg(test)]
mod tests {
    use pinfold_auth::PeerCredentials;

    use super::*;

    #[test]
    fn peers_from_elsewhere_need_the_key_and_tls() {
        let tcp = |address: &str, tls| Peer::tcp(address.parse().expect("an address"), tls);
        for (peer, by_default, with_key) in [
            (Peer::Unix(PeerCredentials { uid: 1 }), true, true),
            (tcp("127.0.0.1:1", false), true, true),
            (tcp("[::ffff:127.0.0.1]:1", false), true, true),
            (tcp("[::1]:1", true), true, true),
            (tcp("192.0.2.1:1", false), false, false),
            (tcp("192.0.2.1:1", true), false, true),
            (tcp("[::ffff:192.0.2.1]:1", true), false, true),
        ] {
            for (remote, allowed) in [(false, by_default), (true, with_key)] {
                let terminals = Terminals::of(&TerminalsConfig { remote }, peer);
                assert_eq!(terminals.check(true).is_ok(), allowed, "{peer:?} {remote}");
                assert!(terminals.check(false).is_ok(), "no terminal is asked for");
            }
        }
    }
}
