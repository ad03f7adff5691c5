//! The listener of `/metrics`: read-only, few connections, nothing else behind it.

use std::{
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use ipnet::IpNet;
use pinfold_types::{Error, ErrorCode, Result, config::MetricsConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Facts, Metrics};
use crate::aside::{Answer, Aside, PLAIN, say};

/// Where it answers when nobody says otherwise.
const DEFAULT: &str = "127.0.0.1:9090";

/// Looks at the server when the numbers are asked for.
pub type Look = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Facts> + Send>> + Send + Sync>;

/// Where to listen, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    at: SocketAddr,
    allowed: Vec<IpNet>,
    /// Nobody asked for this one: when its port is taken, the server goes on without.
    by_default: bool,
}

impl Address {
    /// What the configuration and the command line (`ADDRESS:PORT`, or `none`) come to; `None` for
    /// nowhere.
    pub fn of(config: &MetricsConfig, option: Option<&str>) -> Result<Option<Self>> {
        let said = option.or(config.listen.as_deref());
        let text = match said {
            Some("" | "none") => return Ok(None),
            said => said.unwrap_or(DEFAULT),
        };
        let bad =
            |why: String, hint: &str| Err(Error::new(ErrorCode::InvalidArgument, why).hint(hint));
        let Ok(address) = text.parse::<SocketAddr>() else {
            return bad(
                format!("metrics.listen of {text:?} is not ADDRESS:PORT"),
                "write 127.0.0.1:9090, [::1]:9090, or an empty string for nowhere",
            );
        };
        let mut allowed = Vec::new();
        for text in &config.allow_cidrs {
            match text.parse::<IpNet>() {
                Ok(net) => allowed.push(net),
                Err(_) => {
                    return bad(
                        format!("{text:?} in metrics.allow_cidrs is not a network"),
                        "write 10.0.0.0/8, or 192.0.2.7/32 for one address",
                    );
                }
            }
        }
        if !address.ip().to_canonical().is_loopback() && allowed.is_empty() {
            return bad(
                format!("metrics.listen of {address} is beyond loopback, and nobody may read it"),
                "name who may in metrics.allow_cidrs, or listen on 127.0.0.1",
            );
        }
        Ok(Some(Self { at: address, allowed, by_default: said.is_none() }))
    }

    fn lets_in(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.allowed.iter().any(|net| net.contains(&peer))
    }
}

/// A bound listener.
pub struct MetricsServer {
    listener: TcpListener,
    address: Address,
    metrics: Metrics,
    look: Look,
}

impl fmt::Debug for MetricsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl MetricsServer {
    /// Binds. A default address that is taken is said in the log, and there is no listener; one
    /// that somebody asked for is an error.
    pub async fn bind(address: Address, metrics: Metrics, look: Look) -> Result<Option<Self>> {
        match TcpListener::bind(address.at).await {
            Ok(listener) => Ok(Some(Self { listener, address, metrics, look })),
            Err(error) if address.by_default => {
                let place = address.at;
                tracing::warn!(%place, %error, "no metrics: set metrics.listen to another address");
                Ok(None)
            }
            Err(error) => Err(Error::new(
                ErrorCode::Unavailable,
                format!("metrics cannot be served on {}: {error}", address.at),
            )
            .hint("set metrics.listen to a free address, or to nothing")),
        }
    }

    /// Where it listens, with the port that the kernel chose where 0 was asked for.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, address, metrics, look } = self;
        let answer: Answer = Arc::new(move |request| {
            let (metrics, look) = (metrics.clone(), Arc::clone(&look));
            Box::pin(async move { answer(&request, &metrics, &look).await })
        });
        let lets_in = Arc::new(move |peer| address.lets_in(peer));
        Aside { listener, what: "metrics", lets_in, answer }.run(stop).await;
    }
}

async fn answer<B>(request: &Request<B>, metrics: &Metrics, look: &Look) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return say(StatusCode::NOT_FOUND, "only /metrics is here\n", PLAIN);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return say(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read\n", PLAIN);
    }
    match metrics.render(&look().await) {
        Ok(text) => say(StatusCode::OK, text, "text/plain; version=0.0.4; charset=utf-8"),
        Err(error) => {
            tracing::error!(cause = error.internal, "metrics could not be written");
            say(StatusCode::INTERNAL_SERVER_ERROR, "see the server's log\n", PLAIN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: Option<&str>, allow: &[&str]) -> MetricsConfig {
        MetricsConfig {
            listen: listen.map(str::to_owned),
            allow_cidrs: allow.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    #[test]
    fn beyond_loopback_somebody_must_be_named() {
        let at = |listen, allow: &[&str]| Address::of(&config(listen, allow), None);
        assert!(at(None, &[]).expect("the default").is_some_and(|found| found.by_default));
        assert_eq!(at(Some(""), &[]).expect("off"), None);
        let asked = at(Some("[::1]:0"), &[]).expect("loopback").expect("on");
        assert!(!asked.by_default);
        for wide in ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090"] {
            let refused = at(Some(wide), &[]).expect_err("nobody may read it");
            assert!(refused.hint.is_some_and(|hint| hint.contains("allow_cidrs")));
        }
        let wide = at(Some("0.0.0.0:9090"), &["10.1.0.0/16"]).expect("named").expect("on");
        for (peer, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("127.0.0.1", true),
            ("10.2.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(wide.lets_in(peer.parse().expect("an address")), allowed, "{peer}");
        }
        for bad in ["9090", "localhost:9090", "127.0.0.1"] {
            assert!(at(Some(bad), &[]).is_err(), "{bad}");
        }
        assert!(at(None, &["10.0.0.0/40"]).is_err());
    }

    #[test]
    fn the_option_goes_before_the_file() {
        let file = config(Some("127.0.0.1:1"), &[]);
        assert_eq!(Address::of(&file, Some("none")).expect("off"), None);
        let option = Address::of(&file, Some("127.0.0.1:2")).expect("valid").expect("on");
        assert_eq!(option.at.port(), 2);
    }
}
