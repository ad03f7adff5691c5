//! A server that listens on TCP, and people with tokens.

use std::{net::TcpStream, time::Duration};

use serde_json::Value;
use testkit::{Server, ServerOptions};

use crate::client::Client;

/// A running server.
pub(crate) struct House {
    pub(crate) server: Server,
}

impl House {
    pub(crate) fn new(config: &str) -> Self {
        let options = ServerOptions {
            config: config.to_owned(),
            listen: vec!["127.0.0.1:0".into()],
            ..ServerOptions::default()
        };
        Self { server: Server::with(options) }
    }

    /// Somebody with this token.
    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        // The last one that it printed: a server that was started again has another, which it
        // prints soon after its socket answers.
        let address = testkit::until("a TCP address", Duration::from_secs(30), || {
            let last = self.server.tcp().last().copied()?;
            TcpStream::connect(last).is_ok().then_some(last)
        });
        Client::new(address, token.map(str::to_owned))
    }

    /// A new principal below the owner; `more` is JSON with what it is given besides a name.
    pub(crate) fn token(&self, name: &str, more: &str) -> Client {
        let mut body: Value = serde_json::from_str(more).expect("JSON");
        body["name"] = name.into();
        let made = self.server.api("POST", "/api/v1/tokens", Some(&body));
        assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
        self.client(made.json()["token"].as_str())
    }

    /// Somebody with a token that `maker` makes.
    pub(crate) fn minted(&self, maker: &Client, body: &str) -> Client {
        let made = maker.post("/api/v1/tokens", body).ok();
        self.client(made["token"].as_str())
    }

    /// What the owner gets over the unix socket.
    pub(crate) fn owner(&self, path: &str) -> Value {
        self.server.api("GET", path, None).json()
    }
}
