//! A server elsewhere: its address, how it is trusted, and the token that it knows us by.

mod token;
mod trust;

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use pinfold_egress::operator;
use pinfold_types::{
    Error, ErrorCode, Result,
    config::{Host, Origin, split_port},
    name::excerpt,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::args::Global;

/// How long a name, a connection and a handshake may take, each.
const REACH: Duration = Duration::from_secs(15);

/// A server elsewhere.
#[derive(Clone)]
pub(crate) struct Remote {
    host: Host,
    port: u16,
    authority: HeaderValue,
    token: HeaderValue,
    tls: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// A connection to it.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Remote {
    /// The server that the command line or `PINFOLD_SERVER` names; `None` when neither does.
    ///
    /// # Errors
    /// When its URL, the token or what it is to be trusted by is missing or wrong, or the token
    /// would travel in the clear.
    pub(crate) fn find(global: &Global) -> Result<Option<Self>> {
        let Some(url) = given(global.server.as_deref(), "PINFOLD_SERVER") else { return Ok(None) };
        let (https, host, port, authority) = parse(&url)?;
        let pin = given(global.ca_pin.as_deref(), "PINFOLD_CA_PIN");
        let tls = if https {
            Some(trust::config(pin.as_deref(), global.ca_file.as_deref())?)
        } else if !host.is_loopback() {
            return Err(wrong("a token does not travel over plain http to another machine")
                .hint(format!("write https://{authority}")));
        } else if pin.is_some() || global.ca_file.is_some() {
            return Err(wrong("there is nothing to pin over plain http")
                .hint(format!("write https://{authority}, or leave the pin out")));
        } else {
            None
        };
        let token = token::find(global.token_file.as_deref())?;
        let authority = HeaderValue::try_from(authority).map_err(Error::internal)?;
        Ok(Some(Self { host, port, authority, token, tls }))
    }

    /// Value of `Host`.
    pub(super) const fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Value of `Authorization`.
    pub(super) const fn token(&self) -> &HeaderValue {
        &self.token
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<Stream> {
        let named = self.authority.to_str().unwrap_or_default();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::new(ErrorCode::NoServer, format!("the server at {named} {what}: {error}"))
        };
        let tcp = operator::dial(&self.host, self.port, REACH)
            .await
            .map_err(|error| failed("cannot be reached", &Error::from(error)))?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let name = match &self.host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(Error::internal)?,
            Host::Address(address) => ServerName::IpAddress((*address).into()),
        };
        let shaking = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
        match tokio::time::timeout(REACH, shaking).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(failed("is not trusted", &error).hint(
                "give the fingerprint that `pinfold ca show` prints on the server: \
                 --ca-pin sha256:…",
            )),
            Err(_) => Err(failed("did not set up TLS", &"no answer in time")),
        }
    }
}

/// A value of the command line, else of the environment; empty is absent.
fn given(option: Option<&str>, name: &str) -> Option<String> {
    option.map(str::to_owned).or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
}

fn wrong(why: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, why)
}

/// Scheme, host, port, and both as `Host` wants them.
fn parse(url: &str) -> Result<(bool, Host, u16, String)> {
    let bad = || {
        wrong(format!("{:?} is not a server's URL", excerpt(url)))
            .hint("write https://HOST:PORT, without a path")
    };
    let url_only = url.strip_suffix('/').unwrap_or(url);
    let (https, rest) = match url_only.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return Err(bad()),
    };
    // The same reading as that of an origin: no user, no path, no query.
    let _checked: Origin = url_only.parse().map_err(|_| bad())?;
    let (host, port) = split_port(rest).ok_or_else(bad)?;
    let host: Host = host.parse().map_err(|_| bad())?;
    let authority = port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
    Ok((https, host, port.unwrap_or(if https { 443 } else { 80 }), authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_and_a_place() {
        for (url, authority, port) in [
            ("https://pinfold.example:7070", "pinfold.example:7070", 7070),
            ("https://Pinfold.example/", "pinfold.example", 443),
            ("http://127.0.0.1:7070", "127.0.0.1:7070", 7070),
            ("https://[::1]:1", "[::1]:1", 1),
        ] {
            let (_, _, found, shown) = parse(url).expect(url);
            assert_eq!((shown.as_str(), found), (authority, port));
        }
        for url in [
            "pinfold.example",
            "ftp://a",
            "https://a/b",
            "https://u:p@a",
            "https://a?b",
            "https://",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
