//! What a certificate of the local authority is made out for.

use std::{collections::BTreeSet, net::SocketAddr};

use pinfold_types::config::{Config, Host};

/// Loopback names and addresses, configured names, and the addresses that are listened on; where
/// that is every address, all that this machine has.
pub(super) fn names(config: &Config, addresses: &[SocketAddr]) -> Vec<String> {
    let mut names: BTreeSet<String> =
        ["localhost", "pinfold.localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for host in &config.server.hosts {
        names.insert(match host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        });
    }
    for address in addresses {
        let address = address.ip().to_canonical();
        if address.is_unspecified() {
            names.extend(pinfold_egress::addresses::own().iter().map(ToString::to_string));
        } else {
            names.insert(address.to_string());
        }
    }
    names.into_iter().collect()
}
