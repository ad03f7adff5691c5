//! Clients that are known by a document of their own (OAuth Client ID Metadata Document): the id
//! is the URL that it lies at. It is fetched through the guarded client alone.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pinfold_types::{Error, ErrorCode, Result, name::excerpt};
use serde::Deserialize;
use tokio::{sync::Semaphore, time::Instant};
use url::Url;

use super::{Client, clients::check_redirects, shown_name};
use crate::access::outside::Outside;

/// Largest document.
const MAX_BYTES: u64 = 32 << 10;
/// How long a document is believed.
const FRESH: Duration = Duration::from_mins(10);
/// How long a failure is remembered.
const FAILED: Duration = Duration::from_secs(30);
/// Most documents that are remembered; the oldest make way.
const MOST: usize = 256;
/// Most fetches at once.
const AT_ONCE: usize = 4;
/// Longest id.
const MAX_ID_BYTES: usize = 1024;

/// Documents of clients.
#[derive(Debug)]
pub(crate) struct Documents {
    outside: Outside,
    known: Mutex<HashMap<String, Known>>,
    places: Semaphore,
}

#[derive(Clone, Debug)]
struct Known {
    client: Result<Client>,
    until: Instant,
}

/// What is read of a document.
#[derive(Debug, Deserialize)]
struct Document {
    client_id: String,
    #[serde(default)]
    client_name: String,
    redirect_uris: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
}

/// Whether an id is the URL of a document.
pub(crate) fn is_document(id: &str) -> bool {
    id.starts_with("https://")
}

impl Documents {
    pub(crate) fn new(outside: Outside) -> Self {
        Self { outside, known: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    /// The client with this id, from its document.
    pub(crate) async fn find(&self, id: &str, schemes: &[String]) -> Result<Client> {
        let host = check_id(id)?;
        if let Some(known) = self.lock().get(id).filter(|known| known.until > Instant::now()) {
            return known.client.clone();
        }
        let Ok(_place) = self.places.try_acquire() else {
            let mut error = Error::new(
                ErrorCode::Unavailable,
                format!("{AT_ONCE} documents of clients are being fetched already"),
            );
            error.retry_after_ms = Some(1000);
            return Err(error);
        };
        let client = self.outside.document(id, MAX_BYTES, |why| bad(id, why)).await;
        let client = client.and_then(|text| read(id, &host, &text, schemes));
        let life = if client.is_ok() { FRESH } else { FAILED };
        let mut known = self.lock();
        let now = Instant::now();
        known.retain(|_, known| known.until > now);
        if known.len() >= MOST
            && let Some(oldest) = known.iter().min_by_key(|(_, known)| known.until)
        {
            let oldest = oldest.0.clone();
            known.remove(&oldest);
        }
        known.insert(id.to_owned(), Known { client: client.clone(), until: now + life });
        client
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host of an id that can be the URL of a document: https, with a path, and nothing that
/// another reader could take for something else.
fn check_id(id: &str) -> Result<String> {
    let refuse = |why| {
        Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("client_id {:?} is not the URL of a document: {why}", excerpt(id)),
        ))
    };
    if id.len() > MAX_ID_BYTES {
        return refuse("it is longer than 1024 bytes");
    }
    let Ok(url) = Url::parse(id) else { return refuse("it does not parse") };
    if url.as_str() != id || url.scheme() != "https" {
        return refuse("it is not written in its plain form");
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return refuse("it has a fragment or credentials");
    }
    match (url.host_str(), url.path()) {
        (Some(host), path) if path.len() > 1 => Ok(host.to_owned()),
        _ => refuse("it has no path"),
    }
}

fn bad(id: &str, why: &str) -> Error {
    Error::new(ErrorCode::Upstream, format!("the document of client {:?}: {why}", excerpt(id)))
}

/// The client that a document describes.
fn read(id: &str, host: &str, text: &[u8], schemes: &[String]) -> Result<Client> {
    let document: Document = serde_json::from_slice(text)
        .map_err(|err| bad(id, &format!("it is not what is expected: {err}")))?;
    if document.client_id != id {
        return Err(bad(id, "it names another client_id"));
    }
    if document.token_endpoint_auth_method.is_some_and(|method| method != "none") {
        return Err(bad(id, "only clients without a secret are served, with PKCE"));
    }
    check_redirects(&document.redirect_uris, schemes).map_err(|err| bad(id, &err.message))?;
    let name = match shown_name(&document.client_name) {
        name if name.is_empty() => host.to_owned(),
        name => name,
    };
    Ok(Client {
        id: id.to_owned(),
        name,
        host: Some(host.to_owned()),
        redirects: document.redirect_uris,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ID: &str = "https://app.example/client.json";

    #[test]
    fn an_id_is_one_plain_url() {
        assert_eq!(check_id(ID).expect("fine"), "app.example");
        for id in [
            "http://app.example/c",
            "https://app.example",
            "https://app.example/",
            "https://app.example/c#x",
            "https://user@app.example/c",
            "https://app.example/a/../c",
            "https://app.example/./c",
            "https://APP.example/c",
            "https://app.example:443/c",
            "https://app.example/c d",
            "https:app.example/c",
        ] {
            assert!(check_id(id).is_err(), "{id}");
        }
        assert!(check_id(&format!("https://a.example/{}", "x".repeat(2000))).is_err());
    }

    #[test]
    fn a_document_speaks_of_itself_and_of_no_secret() {
        let read = |text: &str| read(ID, "app.example", text.as_bytes(), &[]);
        let fine = r#"{"client_id":"https://app.example/client.json","client_name":"App",
            "redirect_uris":["https://app.example/cb"],"logo_uri":"x"}"#;
        let client = read(fine).expect("fine");
        assert_eq!((client.name.as_str(), client.host.as_deref()), ("App", Some("app.example")));
        for text in [
            "",
            "[]",
            r#"{"client_id":"https://evil.example/c","redirect_uris":["https://app.example/cb"]}"#,
            r#"{"client_id":"https://app.example/client.json"}"#,
            r#"{"client_id":"https://app.example/client.json","redirect_uris":[]}"#,
            r#"{"client_id":"https://app.example/client.json","redirect_uris":["javascript:x"]}"#,
            r#"{"client_id":"https://app.example/client.json",
                "redirect_uris":["https://app.example/cb"],
                "token_endpoint_auth_method":"client_secret_basic"}"#,
        ] {
            assert_eq!(read(text).expect_err("refused").code, ErrorCode::Upstream, "{text}");
        }
    }

    #[tokio::test]
    async fn what_the_guard_refuses_is_refused() {
        let outside = Outside::new(&BTreeMap::new());
        let documents = Documents::new(outside);
        for id in ["https://127.0.0.1/c", "https://localhost/c", "https://169.254.169.254/c"] {
            let refused = documents.find(id, &[]).await.expect_err("refused");
            assert_eq!(refused.code, ErrorCode::EgressDenied, "{id}: {refused}");
        }
    }
}
