//! Where a client may be sent back to: exactly where it said, but for the port of a program on the
//! person's own machine (RFC 8252 §7.3).

use url::Url;

/// Longest URI.
const MAX_BYTES: usize = 2048;
/// Names of the person's own machine, as they stand in a URI.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// Refuses what nobody is sent to: `Err` says why. `schemes` are the private ones that the
/// configuration names; others need a dot in them (RFC 8252 §7.1).
pub(crate) fn check(uri: &str, schemes: &[String]) -> Result<(), &'static str> {
    if uri.len() > MAX_BYTES {
        return Err("it is longer than 2048 bytes");
    }
    let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>^`{|}'".contains(&b);
    if uri.is_empty() || !uri.bytes().all(plain) {
        return Err("it has characters that do not belong into a URI");
    }
    if uri.contains('#') {
        return Err("it has a fragment");
    }
    let Ok(parsed) = Url::parse(uri) else { return Err("it is not an absolute URI") };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("it carries credentials");
    }
    match parsed.scheme() {
        "https" | "http" => {
            let Some((host, _, _)) = authority(uri) else { return Err("it has no host") };
            // One reading: what stands there is the host that a browser goes to.
            let same = parsed.host_str().is_some_and(|known| known.eq_ignore_ascii_case(host));
            if !same {
                return Err("its host is not written in its plain form");
            }
            let own = LOOPBACK.iter().any(|name| host.eq_ignore_ascii_case(name));
            if parsed.scheme() == "http" && !own {
                return Err("http is for programs on the same machine");
            }
            Ok(())
        }
        "javascript" | "data" | "file" | "blob" | "about" | "vbscript" | "ws" | "wss" | "ftp" => {
            Err("nobody is sent to a scheme like that")
        }
        scheme if scheme.contains('.') || schemes.iter().any(|known| known == scheme) => Ok(()),
        _ => Err("its scheme has no dot, and oauth.redirect_schemes does not name it"),
    }
}

/// Whether one of those that a client gave means the one that it asks for.
pub(crate) fn is_one_of(given: &[String], asked: &str) -> bool {
    given.iter().any(|one| one == asked || on_the_same_machine(one, asked))
}

/// Whether both are one but for the port, of a program on the person's own machine.
fn on_the_same_machine(given: &str, asked: &str) -> bool {
    let (Some((host, _, rest)), Some((other, port, other_rest))) =
        (authority(given), authority(asked))
    else {
        return false;
    };
    let plain = given.starts_with("http://") && asked.starts_with("http://");
    let number = port.is_none_or(|port| {
        port.len() <= 5
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    plain && LOOPBACK.contains(&host) && host == other && rest == other_rest && number
}

/// Host, port and rest of an http URI, as they are written.
fn authority(uri: &str) -> Option<(&str, Option<&str>, &str)> {
    let (_, after) = uri.split_once("://")?;
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    let inside = authority.rfind(']').unwrap_or(0);
    match authority[inside..].find(':') {
        None => Some((authority, None, rest)),
        Some(colon) => {
            let (host, port) = authority.split_at(inside + colon);
            Some((host, Some(&port[1..]), rest))
        }
    }
}

/// Where a checked URI leads, as a person is told.
pub fn place(uri: &str) -> String {
    match authority(uri) {
        Some((host, _, _)) if uri.starts_with("http://") => {
            format!("a program on this computer ({host})")
        }
        Some((host, _, _)) if uri.starts_with("https://") => host.to_ascii_lowercase(),
        _ => {
            let scheme = uri.split(':').next().unwrap_or_default();
            format!("an application on this computer ({scheme}:)")
        }
    }
}

/// The same as a source of a content security policy. Addresses in brackets have no form there, so
/// those are named by their scheme.
pub fn source(uri: &str) -> String {
    let scheme = uri.split(':').next().unwrap_or_default();
    match authority(uri) {
        Some((host, port, _)) if matches!(scheme, "http" | "https") && !host.starts_with('[') => {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            format!("{scheme}://{host}{port}")
        }
        _ => format!("{scheme}:"),
    }
}

/// The URI with these parameters added to its query.
pub(crate) fn with(uri: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        query.append_pair(name, value);
    }
    let joint = match uri.split_once('?') {
        None => "?",
        Some((_, before)) if before.is_empty() || before.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{uri}{joint}{}", query.finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schemes() -> Vec<String> {
        vec!["cursor".into()]
    }

    #[test]
    fn only_what_a_client_can_own_is_a_place_to_be_sent_to() {
        for fine in [
            "https://app.example/callback",
            "https://app.example:8443/callback?a=b",
            "http://127.0.0.1:33418/",
            "http://localhost/callback",
            "http://[::1]:1/x",
            "cursor://anysphere.cursor-retrieval/oauth/callback",
            "com.example.app:/oauth",
        ] {
            assert_eq!(check(fine, &schemes()), Ok(()), "{fine}");
        }
        for bad in [
            "",
            "/callback",
            "//app.example/callback",
            "http://app.example/callback",
            "http://localhost.evil.example/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://127.1/callback",
            "http://0x7f.0.0.1/callback",
            "https://app.example/callback#x",
            "https://user@app.example/callback",
            "https://user:pass@app.example/callback",
            "https://app.example\\@evil.example/",
            "https://app.example/ callback",
            "https://app.example/\r\nSet-Cookie: a=b",
            "https://ex\u{e4}mple/callback",
            "https:app.example",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "other:/callback",
            "https://app.example/'><script>",
        ] {
            assert!(check(bad, &schemes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_port_of_a_loopback_name_may_differ() {
        let is = |given: &str, asked: &str| is_one_of(&[given.to_owned()], asked);
        assert!(is("http://127.0.0.1:1/cb", "http://127.0.0.1:50000/cb"));
        assert!(is("http://localhost/cb", "http://localhost:50000/cb"));
        assert!(is("http://[::1]/cb?x=1", "http://[::1]:7/cb?x=1"));
        assert!(is("https://a.example/cb", "https://a.example/cb"));
        for (given, asked) in [
            ("https://a.example/cb", "https://a.example:444/cb"),
            ("https://a.example/cb", "https://a.example/cb/"),
            ("https://a.example/cb", "https://a.example/cb?x=1"),
            ("https://a.example/cb", "https://A.example/cb"),
            ("https://a.example/cb", "https://a.example/CB"),
            ("https://localhost/cb", "https://localhost:5/cb"),
            ("http://127.0.0.1:1/cb", "http://localhost:1/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:1/cb/../evil"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:1@evil.example/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:0/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:99999/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:/cb"),
            ("http://127.0.0.1:1/cb", "https://127.0.0.1:1/cb"),
            ("cursor://a/cb", "cursor://a:5/cb"),
        ] {
            assert!(!is(given, asked), "{given} {asked}");
        }
    }

    #[test]
    fn parameters_join_a_query_that_is_there() {
        assert_eq!(with("https://a/cb", &[("code", "x y&z")]), "https://a/cb?code=x+y%26z");
        assert_eq!(with("https://a/cb?q=1", &[("a", "b")]), "https://a/cb?q=1&a=b");
        assert_eq!(with("https://a/cb?", &[("a", "b")]), "https://a/cb?a=b");
        assert_eq!(source("https://a.example:8443/cb"), "https://a.example:8443");
        assert_eq!(source("http://[::1]:5/cb"), "http:");
        assert_eq!(source("cursor://x/y"), "cursor:");
    }

    proptest! {
        /// Whatever else is asked for leads to the same host and path as what was given.
        #[test]
        fn nothing_but_the_port_ever_differs(asked in "(http|https)://(127\\.0\\.0\\.1|localhost|\\[::1\\]|a\\.b)(:[0-9]{0,6})?[/?@a-b.]{0,6}") {
            let given = "http://127.0.0.1:1/a";
            if is_one_of(&[given.to_owned()], &asked) {
                let parsed = Url::parse(&asked).expect("a URI");
                prop_assert_eq!(parsed.host_str(), Some("127.0.0.1"));
                prop_assert_eq!((parsed.scheme(), parsed.path()), ("http", "/a"));
                prop_assert!(parsed.query().is_none() && parsed.username().is_empty());
            }
        }

        /// A URI that passes goes to the place that the person is told.
        #[test]
        fn what_passes_is_read_by_a_browser_as_by_us(uri in "[a-z]{1,6}:[/\\\\]{0,3}[a-z0-9.@:%\\[\\]]{0,24}[/?#a-z]{0,6}") {
            if check(&uri, &[]).is_ok() {
                let parsed = Url::parse(&uri).expect("a URI");
                if matches!(parsed.scheme(), "http" | "https") {
                    let host = parsed.host_str().expect("a host").to_owned();
                    prop_assert!(place(&uri).contains(&host), "{} {}", uri, host);
                }
            }
        }
    }
}
