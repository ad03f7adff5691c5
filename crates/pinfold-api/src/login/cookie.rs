//! The cookie of a browser that is signed in.
//!
//! Cookies ignore ports, so on this machine it belongs to one name that no other server answers
//! as, `pinfold.localhost`, and on plain http, where a browser refuses the prefix `__Host-`, to the
//! port by its own name.

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use pinfold_auth::unauthenticated;
use pinfold_types::{
    Error, Result,
    access::NewToken,
    config::{Host, Origin},
};

/// The name that browsers find a server of this machine by.
const OWN_NAME: &str = "pinfold.localhost";

/// The origin at which browsers are signed in, for whoever calls us by this one.
pub(crate) fn home(called: &Origin) -> Origin {
    if called.host().is_loopback() {
        called.with_host(Host::Name(OWN_NAME.to_owned()))
    } else {
        called.clone()
    }
}

/// Name of the cookie at an origin; none where browsers are not signed in.
fn name(origin: &Origin) -> Option<String> {
    let own = origin == &home(origin);
    match (own, origin.is_https()) {
        (true, true) => Some("__Host-pinfold".to_owned()),
        (true, false) if origin.host().is_loopback() => Some(format!("pinfold-{}", origin.port())),
        _ => None,
    }
}

/// What a browser shows at this origin.
///
/// # Errors
/// When it shows two.
pub(crate) fn find<'a>(headers: &'a HeaderMap, origin: &Origin) -> Result<Option<&'a str>> {
    let Some(name) = name(origin) else { return Ok(None) };
    let mut found = None;
    for value in headers.get_all(header::COOKIE) {
        // Cookies of others may be anything.
        let Ok(text) = value.to_str() else { continue };
        for pair in text.split(';') {
            let Some((key, value)) = pair.trim().split_once('=') else { continue };
            if key == name && found.replace(value).is_some() {
                return Err(unauthenticated("two cookies"));
            }
        }
    }
    Ok(found)
}

/// Keeps a browser signed in.
pub(super) fn set(origin: &Origin, token: &NewToken) -> Result<HeaderValue> {
    let now = Timestamp::now();
    let left = token.info.expires_at.map_or(0, |end| end.duration_since(now).as_secs().max(0));
    // The idle time is the server's to judge: a cookie that is gone would tell nothing.
    let text =
        token.token.as_deref().ok_or_else(|| Error::internal("a browser without a token"))?;
    with(origin, text, left)
}

/// Makes a browser forget it.
pub(super) fn clear(origin: &Origin) -> Result<HeaderValue> {
    with(origin, "", 0)
}

fn with(origin: &Origin, value: &str, seconds: i64) -> Result<HeaderValue> {
    let name = name(origin).ok_or_else(|| Error::internal("no cookie belongs to this origin"))?;
    let secure = if origin.is_https() { "; Secure" } else { "" };
    let text =
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    HeaderValue::try_from(text).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().expect("an origin")
    }

    #[test]
    fn the_cookie_is_of_one_name_on_this_machine() {
        for (at, cookie) in [
            ("https://pinfold.example", Some("__Host-pinfold")),
            ("https://192.0.2.1:7070", Some("__Host-pinfold")),
            ("https://pinfold.localhost:7070", Some("__Host-pinfold")),
            ("http://pinfold.localhost:7070", Some("pinfold-7070")),
            ("http://pinfold.localhost", Some("pinfold-80")),
            ("http://localhost:7070", None),
            ("http://127.0.0.1:7070", None),
            ("https://localhost:7070", None),
            ("http://other.localhost:7070", None),
            ("http://pinfold.example", None),
        ] {
            assert_eq!(name(&origin(at)).as_deref(), cookie, "{at}");
        }
        assert_eq!(home(&origin("http://[::1]:7070")), origin("http://pinfold.localhost:7070"));
    }

    #[test]
    fn it_is_found_among_others_and_only_once() {
        let at = origin("http://pinfold.localhost:7070");
        let find = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, HeaderValue::from_static(value));
            }
            find(&headers, &at).map(|found| found.map(str::to_owned))
        };
        assert_eq!(find(&["a=b; pinfold-7070=x; c"]).expect("one"), Some("x".into()));
        assert_eq!(find(&["a=b", "pinfold-7070=x"]).expect("one"), Some("x".into()));
        assert_eq!(
            find(&["pinfold-7071=x; Pinfold-7070=y; __Host-pinfold=z"]).expect("none"),
            None
        );
        assert!(find(&["pinfold-7070=x; pinfold-7070=x"]).is_err());
        assert!(find(&["pinfold-7070=x", "pinfold-7070=y"]).is_err());
    }

    #[test]
    fn it_is_kept_from_scripts_and_from_other_sites() {
        let token = NewToken {
            token: Some("pf_web_x".into()),
            info: serde_json::from_value(serde_json::json!({
                "id": "tok_00000000000000000000000000", "name": "browser", "class": "web",
                "principal": "usr_00000000000000000000000000",
                "maker": "usr_00000000000000000000000000", "scopes": [], "reach": "all",
                "fingerprint": "", "created_at": "2026-01-01T00:00:00Z",
            }))
            .expect("a token"),
        };
        let plain = set(&origin("http://pinfold.localhost:7070"), &token).expect("a cookie");
        let text = plain.to_str().expect("text");
        assert_eq!(text, "pinfold-7070=pf_web_x; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
        let tls = set(&origin("https://pinfold.example"), &token).expect("a cookie");
        assert!(tls.to_str().expect("text").starts_with("__Host-pinfold=pf_web_x; Path=/; "));
        assert!(tls.to_str().expect("text").ends_with("; Secure"));
        assert!(!text.contains("Domain"), "of this host alone");
    }
}
