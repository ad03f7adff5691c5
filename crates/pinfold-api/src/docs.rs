//! `GET /api/docs`: a page to read the `OpenAPI` document with. Three files of our own, nothing from
//! elsewhere and nothing inline, so that the strictest content policy holds. They say nothing about
//! this server: what the page shows, it asks as its reader.

use std::sync::LazyLock;

use axum::{Router, response::Response, routing::get};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, header};
use sha1::{Digest, Sha1};

use crate::reply;

/// What the page may do: run its own script, use its own style, ask its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Paths, media types and texts.
const FILES: &[(&str, &str, &str)] = &[
    ("/api/docs", "text/html; charset=utf-8", include_str!("docs/page.html")),
    ("/api/docs/page.css", "text/css; charset=utf-8", include_str!("docs/page.css")),
    ("/api/docs/page.js", "text/javascript; charset=utf-8", include_str!("docs/page.js")),
];

/// Changes with any of the files.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let digest = FILES.iter().fold(Sha1::new(), |digest, file| digest.chain_update(file.2));
    format!("\"{}\"", HEXLOWER.encode(&digest.finalize()))
});

/// The routes of the page.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    FILES.iter().fold(router, |router, (path, kind, text)| {
        router.route(
            path,
            get(move |headers: HeaderMap| std::future::ready(file(&headers, kind, text))),
        )
    })
}

fn file(asked: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let mut response = reply::cached(asked, kind, Bytes::from_static(text.as_bytes()), &TAG);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
