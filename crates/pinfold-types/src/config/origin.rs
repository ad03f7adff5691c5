//! Names of this server and of pages that may call it: exact, never a pattern (AUTH-02).

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, name::excerpt};

/// A DNS name in lower case, or an address in its canonical form (`::ffff:127.0.0.1` is
/// `127.0.0.1`). Never a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// A name.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// Whether it can only mean this machine: `localhost`, names below it (RFC 6761 §6.3), and
    /// loopback addresses.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Self::Address(address) => address.is_loopback(),
        }
    }
}

impl FromStr for Host {
    type Err = Error;

    /// Reads a host as in a URL: an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{:?} is not a host name or address", excerpt(text)),
            )
            .hint("write one exact name, as in pinfold.example; there are no patterns")
        };
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(bad)?;
            let address: std::net::Ipv6Addr = inner.parse().map_err(|_| bad())?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A last label of digits would be read as an address by some (WHATWG URL §3.5).
        let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        let last = text.rsplit('.').next().unwrap_or_default();
        if text.len() > 253 || !text.split('.').all(label) || numeric(last) {
            return Err(bad());
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Where a web page comes from (RFC 6454): scheme, host and port, no more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    https: bool,
    host: Host,
    port: u16,
}

impl Origin {
    /// The origin of a server that is called by this name and port.
    pub const fn new(https: bool, host: Host, port: Option<u16>) -> Self {
        let port = match port {
            Some(port) => port,
            None => default_port(https),
        };
        Self { https, host, port }
    }

    /// Whether its scheme is https.
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// Its host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The origin with this host in its place.
    #[must_use]
    pub fn with_host(&self, host: Host) -> Self {
        Self { host, ..self.clone() }
    }
}

const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{:?} is not an exact origin", excerpt(text)),
            )
            .hint("write scheme, host and port, as in https://app.example or http://localhost:5173; there are no patterns")
        };
        let (https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(bad()),
        };
        let (host, port) = split_port(rest).ok_or_else(bad)?;
        Ok(Self::new(https, host.parse().map_err(|_| bad())?, port))
    }
}

impl fmt::Display for Origin {
    /// As a browser writes it: the scheme's own port is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default_port(self.https) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Host and port of an authority without user (RFC 3986 §3.2): the port is digits, and not 0.
pub fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let inside = authority.rfind(']').unwrap_or(0);
    match authority[inside..].rfind(':') {
        None => Some((authority, None)),
        Some(colon) => {
            let (host, port) = authority.split_at(inside + colon);
            let digits = &port[1..];
            let number = digits.parse().ok().filter(|port| *port != 0)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then_some((host, Some(number)))
        }
    }
}

macro_rules! as_string {
    ($($of:ident)*) => {$(
        impl TryFrom<String> for $of {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$of> for String {
            fn from(value: $of) -> Self {
                value.to_string()
            }
        }
    )*};
}

as_string! { Host Origin }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact_or_refused() {
        for (text, shown) in [
            ("https://app.example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("https://APP.example:8443", "https://app.example:8443"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[::ffff:127.0.0.1]", "http://127.0.0.1"),
        ] {
            assert_eq!(text.parse::<Origin>().expect(text).to_string(), shown);
        }
        for text in [
            "*",
            "null",
            "",
            "https://*",
            "https://*.example",
            "https://app.*",
            "https://app.example/",
            "https://app.example/path",
            "https://user@app.example",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:+80",
            "https://app.example:99999",
            "https://app.example https://b.example",
            "ftp://app.example",
            "HTTPS://app.example",
            "app.example",
            "https://",
            "https://127.1",
            "https://0x7f.1",
            "https://.example",
            "https://[::1",
            "https://exämple.org",
            "file://",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text:?} is not an exact origin");
        }
    }

    #[test]
    fn hosts_are_one_name_or_one_address() {
        for (text, loopback) in [
            ("localhost", true),
            ("pinfold.localhost", true),
            ("127.0.0.1", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
            ("my_host.lan", false),
        ] {
            assert_eq!(text.parse::<Host>().expect(text).is_loopback(), loopback, "{text}");
        }
        for text in ["*", "*.example", "", ".", "a..b", "a.b.", "-a", "a:80", "::1", "a/b", "a@b"] {
            assert!(text.parse::<Host>().is_err(), "{text:?} is not one host");
        }
    }
}
