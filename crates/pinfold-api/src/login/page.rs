//! The pages: plain HTML without a script, every text in them escaped.

use std::fmt::Write;

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use pinfold_types::{Error, Result};

use crate::reply;

/// A text, fit to stand between tags and in an attribute with double quotes.
pub(crate) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
        safe
    })
}

/// A page in the making.
#[derive(Debug)]
pub(crate) struct Page {
    title: &'static str,
    body: String,
    head: String,
    /// Where its forms may lead besides this server.
    beyond: Option<String>,
}

impl Page {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, body: String::new(), head: String::new(), beyond: None }
    }

    /// A paragraph of text.
    #[must_use]
    pub(crate) fn text(mut self, text: &str) -> Self {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
        self
    }

    /// A smaller heading.
    #[must_use]
    pub(crate) fn heading(mut self, text: &str) -> Self {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(text));
        self
    }

    /// Something to type.
    #[must_use]
    pub(crate) fn command(mut self, text: &str) -> Self {
        let _ = writeln!(self.body, "<pre><code>{}</code></pre>", escape(text));
        self
    }

    /// A list of names and values.
    #[must_use]
    pub(crate) fn facts(mut self, facts: &[(&str, &str)]) -> Self {
        self.body.push_str("<dl>\n");
        for (name, value) in facts {
            let (name, value) = (escape(name), escape(value));
            let _ = writeln!(self.body, "<dt>{name}</dt><dd>{value}</dd>");
        }
        self.body.push_str("</dl>\n");
        self
    }

    /// A list, closed until somebody opens it.
    #[must_use]
    pub(crate) fn details<'a>(
        mut self,
        summary: &str,
        items: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let _ = writeln!(self.body, "<details><summary>{}</summary><ul>", escape(summary));
        for item in items {
            let _ = writeln!(self.body, "<li>{}</li>", escape(item));
        }
        self.body.push_str("</ul></details>\n");
        self
    }

    /// A link.
    #[must_use]
    pub(crate) fn link(mut self, to: &str, text: &str) -> Self {
        let (to, text) = (escape(to), escape(text));
        let _ = writeln!(self.body, "<p><a href=\"{to}\">{text}</a></p>");
        self
    }

    /// A form of hidden values and buttons; the first button is the one that stands out. A button
    /// is a name, a value and a text.
    #[must_use]
    pub(crate) fn form(
        mut self,
        action: &str,
        hidden: &[(&str, &str)],
        buttons: &[(&str, &str, &str)],
    ) -> Self {
        let _ = writeln!(self.body, "<form method=\"post\" action=\"{}\">", escape(action));
        for (name, value) in hidden {
            let (name, value) = (escape(name), escape(value));
            let _ =
                writeln!(self.body, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
        }
        for (name, value, text) in buttons {
            let (name, value, text) = (escape(name), escape(value), escape(text));
            let _ = writeln!(
                self.body,
                "<button type=\"submit\" name=\"{name}\" value=\"{value}\">{text}</button>"
            );
        }
        self.body.push_str("</form>\n");
        self
    }

    /// Goes on by itself, as if its reader had followed a link of this page.
    #[must_use]
    pub(crate) fn going_on_to(mut self, to: &str) -> Self {
        let to = escape(to);
        let _ = writeln!(self.head, "<meta http-equiv=\"refresh\" content=\"0;url={to}\">");
        self
    }

    /// Lets the answer to a form of this page lead there.
    #[must_use]
    pub(crate) fn leading_to(mut self, source: String) -> Self {
        self.beyond = Some(source);
        self
    }

    /// The response.
    pub(crate) fn answer(self, status: StatusCode) -> Result<Response> {
        let Self { title, body, head, beyond } = self;
        let beyond = beyond.map_or(String::new(), |source| format!(" {source}"));
        let policy = format!(
            "default-src 'none'; style-src 'self'; form-action 'self'{beyond}; base-uri 'none'; \
             frame-ancestors 'none'"
        );
        let title = escape(title);
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"robots\" content=\"noindex\">\n<meta name=\"color-scheme\" \
             content=\"light dark\">\n<title>{title} - Pinfold</title>\n\
             <link rel=\"stylesheet\" href=\"/login/page.css\">\n{head}</head>\n<body>\n<main>\n\
             <h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
        );
        let mut response = Response::new(Body::from(html));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let policy = HeaderValue::try_from(policy).map_err(Error::internal)?;
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, html);
        // With `no-referrer` a browser would hide from us that a form is our own (Fetch §3.2.5).
        let own = HeaderValue::from_static("same-origin");
        headers.insert(header::REFERRER_POLICY, own);
        Ok(response)
    }
}

/// A page that says what went wrong.
pub(crate) fn failure(error: &Error) -> Response {
    let status = reply::status(error.code.http_status());
    let mut page = Page::new("That did not work").text(&sentence(&error.message));
    if let Some(hint) = &error.hint {
        page = page.text(&sentence(hint));
    }
    let mut response = page
        .answer(status)
        .unwrap_or_else(|_| Response::new(Body::from("an error without a page")));
    reply::retry_after(response.headers_mut(), error.retry_after_seconds());
    response
}

fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", rest.as_str().trim_end_matches('.'))
}

/// Sends a browser on with a GET.
pub(crate) fn see(to: &str) -> Result<Response> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let to = HeaderValue::try_from(to).map_err(Error::internal)?;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_that_a_client_says_becomes_a_tag() {
        let evil = "\"'><script>alert(1)</script>&amp;";
        let page = Page::new("T")
            .text(evil)
            .heading(evil)
            .command(evil)
            .facts(&[(evil, evil)])
            .details(evil, [evil])
            .link(evil, evil)
            .going_on_to(evil)
            .form(evil, &[(evil, evil)], &[(evil, evil, evil)]);
        for html in [page.body, page.head] {
            assert!(!html.contains("<script") && !html.contains("\"'>"), "{html}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_has_nothing_that_ends_a_text(text in "\\PC{0,60}") {
            let safe = escape(&text);
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
            let back = safe.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"")
                .replace("&#39;", "'").replace("&amp;", "&");
            prop_assert_eq!(back, text);
        }
    }
}
