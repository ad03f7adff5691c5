//! The authorization server: clients, what they wish, the answer of a person, tokens.
//!
//! What is here is called by whoever is nobody yet, so nothing takes a grant but the consent,
//! which makes a credential and so needs the right to make tokens. Everything is counted against
//! the rate of logins, and what comes of it is written down.

mod consent;
mod tokens;

use jiff::Timestamp;
use pinfold_types::{Error, ErrorCode, Result, config::OauthConfig, name::excerpt};
use serde::Deserialize;

pub use self::tokens::{Shown, Tokens};
use crate::{
    Node, Service,
    access::oauth::{Client, documents, pending::Wish, redirect, scopes},
    events::Visitor,
};

/// Longest `state`, and longest code challenge with room.
const MAX_STATE_BYTES: usize = 2048;

/// A failure, as a client is told (RFC 6749 §4.1.2.1, §5.2; RFC 7591 §3.2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct OauthError {
    /// The word.
    pub error: &'static str,
    /// The sentence.
    pub description: String,
    /// HTTP status of an answer.
    pub status: u16,
    /// When to come back.
    pub retry_after_ms: Option<u64>,
}

impl OauthError {
    fn new(error: &'static str, status: u16, description: impl Into<String>) -> Self {
        let description = allowed(&description.into());
        Self { error, description, status, retry_after_ms: None }
    }

    /// The same by another word.
    #[must_use]
    pub fn called(self, error: &'static str) -> Self {
        Self { error, ..self }
    }

    fn request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", 400, description)
    }
}

/// A text with the characters of a description alone (RFC 6749 §4.1.2.1).
fn allowed(text: &str) -> String {
    let fine = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => c,
        _ => '?',
    };
    text.chars().map(fine).collect()
}

impl From<Error> for OauthError {
    fn from(error: Error) -> Self {
        let word = match error.code {
            ErrorCode::RateLimited
            | ErrorCode::QuotaExceeded
            | ErrorCode::Unavailable
            | ErrorCode::Timeout => "temporarily_unavailable",
            code if code.http_status() >= 500 => "server_error",
            ErrorCode::Forbidden => "access_denied",
            _ => "invalid_request",
        };
        // What is inside stays inside.
        if error.code == ErrorCode::Internal {
            tracing::error!(%error, cause = error.internal, "an OAuth request failed");
        }
        Self {
            error: word,
            description: allowed(&error.message),
            status: error.code.http_status(),
            retry_after_ms: error.retry_after_ms,
        }
    }
}

/// What a client asks for at the authorization endpoint, as it came.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Asked {
    /// `code`.
    pub response_type: Option<String>,
    /// Who asks.
    pub client_id: Option<String>,
    /// Where the answer goes; may be left out by a client with one place.
    pub redirect_uri: Option<String>,
    /// What the client wants to see again.
    pub state: Option<String>,
    /// Scopes.
    pub scope: Option<String>,
    /// PKCE.
    pub code_challenge: Option<String>,
    /// `S256`.
    pub code_challenge_method: Option<String>,
    /// RFC 8707.
    pub resource: Option<String>,
}

/// Why a wish cannot be granted.
#[derive(Clone, Debug, PartialEq)]
pub enum Unfit {
    /// The person is told, and sent nowhere: nobody knows where the request is from.
    Told(Error),
    /// The client is told, at a place that is its own.
    SentBack {
        /// That place with the error in its query.
        to: String,
    },
}

/// What a client says of itself when it registers (RFC 7591 §2). Whatever else it says is left out.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Registration {
    /// What it calls itself.
    #[serde(default)]
    pub client_name: String,
    /// Where it may be sent back to.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
}

impl<N: Node> Service<N> {
    /// What the configuration says of clients.
    pub fn oauth_config(&self) -> &OauthConfig {
        &self.access().oauth().config
    }

    /// Registers a client.
    pub async fn register_client(
        &self,
        registration: &Registration,
        visitor: &Visitor,
    ) -> Result<Client, OauthError> {
        self.inner.events.audit().healthy()?;
        self.count_login(visitor).await?;
        let (oauth, now) = (self.access().oauth(), Timestamp::now());
        if !oauth.config.registration {
            let why = "clients do not register themselves here: oauth.registration is false";
            return Err(OauthError::new("access_denied", 403, why));
        }
        let identity = self.access().identity();
        let registered = oauth.clients.register(
            &registration.client_name,
            &registration.redirect_uris,
            &oauth.config.redirect_schemes,
            |id| identity.has_grants(id, now),
            now,
        );
        let client = registered.await.map_err(|error| match error.code {
            ErrorCode::InvalidArgument => {
                OauthError::new("invalid_redirect_uri", 400, error.message)
            }
            _ => error.into(),
        })?;
        let event = self.inner.events.security("oauth.registered", visitor, |event| {
            event.object = format!("client {}", client.id);
            event.detail.insert("name".into(), client.name.clone());
        });
        event.await?;
        Ok(client)
    }

    /// Checks what a client asks for. `issuer` is as whom we were called.
    pub async fn wish(
        &self,
        asked: &Asked,
        issuer: &str,
        visitor: &Visitor,
    ) -> Result<Wish, Unfit> {
        self.count_login(visitor).await.map_err(Unfit::Told)?;
        let client = self.client(asked.client_id.as_deref()).await.map_err(Unfit::Told)?;
        let told = |why: String| {
            Unfit::Told(Error::new(ErrorCode::InvalidArgument, why).hint("nobody was let in"))
        };
        // Until it is known that this is a place of the client's, nobody is sent there.
        let redirect = match (&asked.redirect_uri, client.redirects.as_slice()) {
            (None, [only]) => only.clone(),
            (None, _) => return Err(told("the request does not say where to go back to".into())),
            (Some(uri), given) => {
                let schemes = &self.access().oauth().config.redirect_schemes;
                if !redirect::is_one_of(given, uri) || redirect::check(uri, schemes).is_err() {
                    let uri = excerpt(uri);
                    return Err(told(format!("{uri:?} is not a place of this client")));
                }
                uri.clone()
            }
        };
        let state = asked.state.clone();
        let back = |error: &OauthError| Unfit::SentBack {
            to: sent_back(&redirect, error, state.as_deref(), issuer),
        };
        let fine = check(asked, issuer).and_then(|(challenge, resource)| {
            let asked = scopes::asked(asked.scope.as_deref());
            let asked = asked.map_err(|e| OauthError::new("invalid_scope", 400, e.message))?;
            Ok((challenge, resource, asked))
        });
        let (challenge, resource, scopes) = fine.map_err(|error| back(&error))?;
        let issuer = issuer.to_owned();
        Ok(Wish { client, redirect, state, challenge, resource, scopes, issuer })
    }

    async fn client(&self, id: Option<&str>) -> Result<Client> {
        let bad = |why: &str| Err(Error::new(ErrorCode::InvalidArgument, why));
        let oauth = self.access().oauth();
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return bad("the request does not say which client it is from");
        };
        if documents::is_document(id) {
            let found = oauth.documents.find(id, &oauth.config.redirect_schemes).await;
            // What is wrong out there is for the log: whoever asks is nobody yet.
            return found.map_err(|error| {
                tracing::info!(client = excerpt(id), %error, cause = error.internal, "no client");
                let told = Error::new(
                    ErrorCode::InvalidArgument,
                    format!("the document of client {:?} cannot be used", excerpt(id)),
                );
                Error { retry_after_ms: error.retry_after_ms, ..told }
                    .hint("the log of the server says why")
            });
        }
        match oauth.clients.find(id) {
            Some(client) => Ok(client),
            None => bad("there is no such client here; it has to register again"),
        }
    }
}

/// The challenge and the resource of a request, or what the client is told.
fn check(asked: &Asked, issuer: &str) -> Result<(String, String), OauthError> {
    if asked.response_type.as_deref() != Some("code") {
        let why = "response_type is code, and nothing else";
        return Err(OauthError::new("unsupported_response_type", 400, why));
    }
    if asked.state.as_ref().is_some_and(|state| state.len() > MAX_STATE_BYTES) {
        return Err(OauthError::request("state is longer than 2048 bytes"));
    }
    if asked.code_challenge_method.as_deref() != Some("S256") {
        return Err(OauthError::request("code_challenge_method is S256, and nothing else"));
    }
    let digest = |text: &str| {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes());
        bytes.is_ok_and(|bytes| bytes.len() == 32)
    };
    let Some(challenge) = asked.code_challenge.as_deref().filter(|text| digest(text)) else {
        return Err(OauthError::request("code_challenge is a SHA-256 in base64url"));
    };
    let own = format!("{issuer}/mcp");
    let resource = asked.resource.as_deref().map_or_else(|| own.clone(), canonical);
    if resource != own && resource != issuer {
        let why = format!("the resource of this server is {own}");
        return Err(OauthError::new("invalid_target", 400, why));
    }
    Ok((challenge.to_owned(), own))
}

/// A resource without the slash that some add.
fn canonical(resource: &str) -> String {
    resource.strip_suffix('/').unwrap_or(resource).to_owned()
}

fn sent_back(redirect: &str, error: &OauthError, state: Option<&str>, issuer: &str) -> String {
    let mut parameters = vec![
        ("error", error.error),
        ("error_description", error.description.as_str()),
        ("iss", issuer),
    ];
    parameters.extend(state.map(|state| ("state", state)));
    redirect::with(redirect, &parameters)
}
