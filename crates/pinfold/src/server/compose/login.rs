//! Where browsers find the server, and the link that `pinfold up` prints.

use std::{io::IsTerminal, net::SocketAddr};

use pinfold_auth::{Caller, ObjectRef, PeerCredentials, Surface, ops};
use pinfold_control::Service;
use pinfold_node::LocalNode;
use pinfold_types::{
    Result,
    access::NewLogin,
    config::{Host, Origin, ServerConfig},
};

use crate::output::{Output, human};

/// The name of this machine's own server: cookies ignore ports, so it is no other server's.
const OWN_NAME: &str = "pinfold.localhost";

/// URLs for browsers, the best first: names that the configuration gives to a server with TLS of
/// its own or of a proxy, then what is listened on.
pub(super) fn pages(config: &ServerConfig, addresses: &[SocketAddr]) -> Vec<String> {
    let https = config.has_tls();
    let behind = config
        .origins
        .iter()
        .filter(|origin| !https && origin.is_https() && config.hosts.contains(origin.host()));
    let port = addresses.first().map(SocketAddr::port);
    let named = config.hosts.iter().filter(|_| https && port.is_some());
    let named = named.map(|host| Origin::new(true, host.clone(), port));
    let listening = addresses.iter().map(|address| {
        let ip = address.ip().to_canonical();
        let host = if ip.is_loopback() || ip.is_unspecified() {
            Host::Name(OWN_NAME.to_owned())
        } else {
            Host::Address(ip)
        };
        Origin::new(https, host, Some(address.port()))
    });
    behind.cloned().chain(named).chain(listening).map(|origin| origin.to_string()).collect()
}

/// Prints a link that signs a browser in, where a person reads it: what goes to a file or a journal
/// has no place for one.
pub(super) async fn invite(service: &Service<LocalNode>, output: &Output) {
    if output.quiet() || output.json() || !std::io::stderr().is_terminal() {
        return;
    }
    match link(service).await {
        Ok(link) => {
            let time = human::coarse(link.expires_in_ms);
            output.note(format!("sign in, once, within {time}: {}", link.url));
        }
        Err(error) => tracing::debug!(%error, "no login link was made"),
    }
}

async fn link(service: &Service<LocalNode>) -> Result<NewLogin> {
    let uid = rustix::process::geteuid().as_raw();
    let owner = service.access().authenticate_peer(PeerCredentials { uid })?;
    let caller = Caller::new(owner, Surface::Unix);
    let grant = service.grant::<ops::LoginCreate>(&caller, ObjectRef::server()).await?;
    service.create_login(grant, None).await
}

#[cfg(test)]
mod tests {
    use pinfold_types::config::Config;

    #[test]
    fn browsers_are_sent_to_a_name_of_their_own() {
        let pages = |text: &str, addresses: &[&str]| {
            let config = Config::parse(text).expect("a valid file").server;
            let addresses: Vec<_> =
                addresses.iter().map(|text| text.parse().expect("an address")).collect();
            super::pages(&config, &addresses)
        };
        assert_eq!(pages("", &["127.0.0.1:7070"]), ["http://pinfold.localhost:7070"]);
        assert_eq!(pages("", &["[::1]:80"]), ["http://pinfold.localhost"]);
        assert!(pages("", &[]).is_empty());
        let tls = "[server]\ntls = \"local-ca\"\nhosts = [\"pinfold.example\"]";
        let found = pages(tls, &["0.0.0.0:7070", "192.0.2.1:7071"]);
        assert_eq!(
            found,
            [
                "https://pinfold.example:7070",
                "https://pinfold.localhost:7070",
                "https://192.0.2.1:7071"
            ]
        );
        let proxy = "[server]\nhosts = [\"pinfold.example\"]\norigins = \
            [\"https://pinfold.example\", \"https://app.example\"]";
        let found = pages(&proxy.replace("\\\n", ""), &["127.0.0.1:7070"]);
        assert_eq!(found, ["https://pinfold.example", "http://pinfold.localhost:7070"]);
    }
}
