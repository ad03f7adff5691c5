//! One reading of a URL, used for every check and for the dial.

use std::{fmt, net::IpAddr};

use url::Url;

use crate::error::EgressError;

/// Longest URL.
const MAX_URL_BYTES: usize = 8192;

/// A host as the URL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name in ASCII, lower case, without a trailing dot.
    Name(String),
    /// An address literal.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A parsed destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: Host,
    port: u16,
}

impl Target {
    /// Reads a URL by the WHATWG rules and refuses what is ambiguous to any other reader:
    /// credentials, control characters, white space, back-slashes, hosts in other scripts than
    /// their ASCII form, numbers that are addresses in disguise.
    pub fn parse(text: &str) -> Result<Self, EgressError> {
        let refuse = |why| Err(EgressError::BadUrl { url: safe_excerpt(text), why });
        if text.len() > MAX_URL_BYTES {
            return refuse("it is longer than 8192 bytes");
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return refuse("it has white space or control characters");
        }
        if text.contains('\\') {
            return refuse("it has a back-slash");
        }
        let Ok(mut url) = Url::parse(text) else { return refuse("it does not parse") };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("only http and https are fetched");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it carries credentials");
        }
        // What stands between `//` and the path must be the parsed host and port, letter case
        // and default port aside: a reader that sees another host there would be fooled.
        let Some(authority) = authority(text) else {
            return refuse("it has no // before its host");
        };
        if authority.contains('@') {
            return refuse("it carries credentials");
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) => {
                let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                Host::Name(bare)
            }
            Some(url::Host::Ipv4(address)) => Host::Address(address.into()),
            Some(url::Host::Ipv6(address)) => Host::Address(address.into()),
            None => return refuse("it has no host"),
        };
        let written = written_host(authority);
        let same = match &host {
            Host::Name(name) => {
                written.strip_suffix('.').unwrap_or(written).eq_ignore_ascii_case(name)
            }
            Host::Address(address) => {
                let inner = written.trim_start_matches('[').trim_end_matches(']');
                inner.parse::<IpAddr>().is_ok_and(|parsed| parsed == *address)
            }
        };
        if !same {
            return refuse("its host is not written in its plain ASCII form");
        }
        let Some(port) = url.port_or_known_default().filter(|port| *port != 0) else {
            return refuse("it has no usable port");
        };
        url.set_fragment(None);
        Ok(Self { url, host, port })
    }

    /// Where a redirect of this target leads.
    pub fn join(&self, location: &str) -> Result<Self, EgressError> {
        if location.bytes().any(|b| b <= b' ' || b == 0x7f) || location.contains('\\') {
            return Err(EgressError::BadUrl {
                url: safe_excerpt(location),
                why: "it has white space, control characters or back-slashes",
            });
        }
        // An absolute location is read as written, so that the disguise rules apply to it.
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.url.scheme()));
        }
        if location.contains("://") && Url::parse(location).is_ok() {
            return Self::parse(location);
        }
        let joined = self.url.join(location).map_err(|_| EgressError::BadUrl {
            url: safe_excerpt(location),
            why: "it does not parse",
        })?;
        Self::parse(joined.as_str())
    }

    /// The URL without its fragment.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, written or implied.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is spoken.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// `host:port`, the key of an operator's exception.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether both have one origin (RFC 6454).
    pub fn same_origin(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port && self.is_https() == other.is_https()
    }
}

fn authority(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    Some(&rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())])
}

fn written_host(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// What may be shown of a URL: no credentials, no query, at most 120 characters.
pub(crate) fn safe_excerpt(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let shown = match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &text[..scheme + 3], &text[at + 1..])
        }
        (None, Some(at)) => text[at + 1..].to_owned(),
        _ => text.to_owned(),
    };
    shown.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_urls_are_read() {
        let target = Target::parse("https://Registry.Example.com./v2/?a=b#c").expect("plain");
        assert_eq!(target.authority(), "registry.example.com:443");
        assert_eq!(target.url().fragment(), None);
        let target = Target::parse("http://[2606:4700::1111]:5000/").expect("v6");
        assert_eq!(target.authority(), "[2606:4700::1111]:5000");
        let from = Target::parse("https://a.example.com/x/y").expect("plain");
        assert_eq!(from.join("../z").expect("relative").url().as_str(), "https://a.example.com/z");
        assert_eq!(from.join("//b.org/").expect("scheme").authority(), "b.org:443");
    }

    #[test]
    fn excerpts_hide_credentials() {
        assert_eq!(safe_excerpt("https://u:p@h/x?token=1"), "https://h/x");
        assert_eq!(safe_excerpt("u:p@h"), "h");
    }

    proptest! {
        #[test]
        fn wild_text_never_panics_and_what_passes_parses_again(text in "\\PC*") {
            if let Ok(target) = Target::parse(&text) {
                let again = Target::parse(target.url().as_str()).expect("stable");
                prop_assert_eq!(again.authority(), target.authority());
            }
        }

        #[test]
        fn numbers_in_disguise_do_not_pass(value: u32) {
            let [a, b, c, d] = value.to_be_bytes();
            for text in [
                format!("http://{value}/"), format!("http://0x{value:x}/"),
                format!("http://0{a:o}.{b}.{c}.{d}/"), format!("http://0x{a:x}.{b}.{c}.{d}/"),
                format!("http://{a}.{}/", value & 0xff_ffff),
            ] {
                if let Ok(target) = Target::parse(&text) {
                    // Only a spelling that everybody reads alike may pass.
                    prop_assert!(text.contains(&target.host().to_string()), "{}", text);
                }
            }
        }
    }
}
