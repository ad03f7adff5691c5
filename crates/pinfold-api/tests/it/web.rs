//! The least browser: a name, a cookie, and what a browser says of itself.

use crate::server::{Answer, Served};

/// Rates that no test reaches.
pub(crate) const FAST: &str = "[rates.owner]\nlogin = { per_second = 10000, burst = 10000 }\n\
    [rates.tokens]\nlogin = { per_second = 10000, burst = 10000 }\n\
    [rates.global]\nlogin = { per_second = 10000, burst = 10000 }\n";

pub(crate) struct Web<'a> {
    pub(crate) served: &'a Served,
    pub(crate) host: String,
    pub(crate) cookie: Option<String>,
}

impl<'a> Web<'a> {
    /// One that knows the server by this name.
    pub(crate) fn at(served: &'a Served, name: &str) -> Self {
        Self { served, host: format!("{name}:{}", served.tcp.port()), cookie: None }
    }

    /// One that is signed in as the server's owner.
    pub(crate) async fn signed_in(served: &'a Served) -> Self {
        let mut web = Self::at(served, "pinfold.localhost");
        let code = link(served).await;
        let answer = web.submit("/login", &[("code", &code)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        web.cookie = Some(set_cookie(&answer));
        web
    }

    /// Another one at the same place, without a cookie.
    pub(crate) fn at_host(other: &Self) -> Self {
        Self { served: other.served, host: other.host.clone(), cookie: None }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Sends a request with these header lines, each ending with CR LF.
    pub(crate) async fn send(&self, what: &str, headers: &str, body: &str) -> Answer {
        let cookie =
            self.cookie.as_ref().map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
        let length = match body {
            "" if !what.starts_with("POST") => String::new(),
            body => format!("Content-Length: {}\r\n", body.len()),
        };
        let request = format!(
            "{what} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{cookie}{length}{headers}\r\n{body}",
            self.host
        );
        self.served.over_tcp(&request).await
    }

    /// What a person types or a page of ours leads to.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "Sec-Fetch-Site: same-origin\r\n", "").await
    }

    /// A form of one of our pages.
    pub(crate) async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let own = format!("Origin: {}\r\nSec-Fetch-Site: same-origin\r\n", self.origin());
        self.form(path, &own, fields).await
    }

    /// A form with these header lines.
    pub(crate) async fn form(&self, path: &str, headers: &str, fields: &[(&str, &str)]) -> Answer {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            body.append_pair(name, value);
        }
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        self.send(&format!("POST {path}"), &format!("{kind}{headers}"), &body.finish()).await
    }
}

/// The code of a new link, made by the owner over the unix socket.
pub(crate) async fn link(served: &Served) -> String {
    let made = served.call("POST", "/api/v1/logins").await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made: serde_json::Value = serde_json::from_slice(&made.body).expect("JSON");
    let url = made["url"].as_str().expect("a URL");
    url.split_once("/login?code=").expect("a code").1.to_owned()
}

/// Name and value of the cookie that an answer sets.
pub(crate) fn set_cookie(answer: &Answer) -> String {
    let line = header(answer, "set-cookie");
    line.and_then(|line| line.split(';').next()).expect("a cookie").to_owned()
}

/// The value of a header.
pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let mut lines = answer.raw_head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
