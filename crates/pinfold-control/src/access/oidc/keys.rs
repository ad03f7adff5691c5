//! The provider's keys, fetched through the guarded client alone.

use std::time::Duration;

use jsonwebtoken::{
    DecodingKey, Header, decode_header,
    jwk::{Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use pinfold_auth::{ForeignToken, unauthenticated};
use pinfold_types::{Error, ErrorCode, Result};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{sync::Mutex, time::Instant};

use super::claims::ALGORITHMS;
use crate::access::outside::Outside;

/// Largest document.
const MAX_BYTES: u64 = 256 << 10;
/// How long keys are believed without another look: a key that is withdrawn is withdrawn after
/// this at the latest, while the provider can be reached.
const FRESH: Duration = Duration::from_mins(10);
/// And how long while it cannot.
const STALE: Duration = Duration::from_hours(1);
/// Between two looks, whoever asks: strangers choose the names of keys.
const PAUSE: Duration = Duration::from_secs(30);
/// Most keys of a provider.
const MOST: usize = 64;

/// The keys of one provider.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    outside: Outside,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    keys: Vec<Jwk>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

/// What is read of the provider's metadata.
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    pub(super) fn new(issuer: String, outside: Outside) -> Self {
        Self { issuer, outside, held: Mutex::default() }
    }

    /// A token's header and the key that it names.
    pub(super) async fn of(&self, token: ForeignToken<'_>) -> Result<(Header, DecodingKey)> {
        let header = decode_header(token.text())
            .map_err(|error| unauthenticated(&format!("a provider's token: {error}")))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(unauthenticated("a provider's token by an algorithm that is not taken"));
        }
        if header.crit.is_some() || !is_access(header.typ.as_deref()) {
            return Err(unauthenticated("a provider's token of another kind"));
        }
        // One at a time: whoever waits here finds what the first one fetched.
        let mut held = self.held.lock().await;
        let older = |at: Option<Instant>, age| at.is_none_or(|at| at.elapsed() >= age);
        let found = find(&held.keys, &header);
        if (found.is_none() || older(held.fetched, FRESH)) && older(held.tried, PAUSE) {
            held.tried = Some(Instant::now());
            match self.fetch().await {
                Ok(keys) => {
                    held.keys = keys;
                    held.fetched = Some(Instant::now());
                }
                Err(error) => {
                    let issuer = &self.issuer;
                    tracing::warn!(issuer, %error, cause = error.internal, "no keys of the provider");
                }
            }
        }
        if older(held.fetched, STALE) {
            held.keys.clear();
            let mut error = Error::new(
                ErrorCode::Unavailable,
                "the provider that vouches for callers gives no keys",
            )
            .hint("the log of the server says why");
            error.retry_after_ms = Some(PAUSE.as_secs() * 1000);
            return Err(error);
        }
        let key = find(&held.keys, &header)
            .ok_or_else(|| unauthenticated("a provider's token by a key that it does not name"))?;
        let key = DecodingKey::from_jwk(key)
            .map_err(|error| unauthenticated(&format!("a key of the provider: {error}")))?;
        Ok((header, key))
    }

    async fn fetch(&self) -> Result<Vec<Jwk>> {
        let metadata = self.metadata().await?;
        if metadata.issuer != self.issuer {
            return Err(self.bad("its metadata speak of another issuer"));
        }
        if !metadata.jwks_uri.starts_with("https://") {
            return Err(self.bad("jwks_uri is not an https URL"));
        }
        let set: Loose = self.json(&metadata.jwks_uri).await?;
        if set.keys.len() > MOST {
            return Err(self.bad("it has more than 64 keys"));
        }
        // A key of a kind that is not known here is none, and no reason to refuse the others.
        let known = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(JwkSet { keys: known.collect() }.keys)
    }

    /// By `OpenID` Connect Discovery §4, or by RFC 8414 §3 where that finds nothing.
    async fn metadata(&self) -> Result<Metadata> {
        let plain = self.issuer.trim_end_matches('/');
        let first = self.json(&format!("{plain}/.well-known/openid-configuration")).await;
        let Err(error) = first else { return first };
        let mut url = url::Url::parse(plain).map_err(Error::internal)?;
        let path = format!("/.well-known/oauth-authorization-server{}", url.path());
        url.set_path(path.trim_end_matches('/'));
        self.json(url.as_str()).await.map_err(|_| error)
    }

    async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let bad = |why: &str| self.bad(&format!("{url}: {why}"));
        let body = self.outside.document(url, MAX_BYTES, bad).await?;
        serde_json::from_slice(&body).map_err(|error| bad(&error.to_string()))
    }

    fn bad(&self, why: &str) -> Error {
        Error::new(ErrorCode::Upstream, format!("the provider {}: {why}", self.issuer))
    }
}

/// A set of keys, before it is known which of them can be used.
#[derive(Deserialize)]
struct Loose {
    keys: Vec<serde_json::Value>,
}

/// The key that a header names: by its id, or the only one of its kind where it names none.
fn find<'a>(keys: &'a [Jwk], header: &Header) -> Option<&'a Jwk> {
    let mut fitting = keys.iter().filter(|key| {
        let common = &key.common;
        let named = header.kid.as_ref().is_none_or(|kid| common.key_id.as_ref() == Some(kid));
        named && signs(key) && common.key_algorithm.is_none_or(|own| is(own, header))
    });
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first)
}

/// Whether a type is one of access tokens (RFC 9068 §2.1). Many providers say no more than `JWT`,
/// or nothing; then it is the audience that tells it from others.
fn is_access(kind: Option<&str>) -> bool {
    let Some(kind) = kind else { return true };
    ["at+jwt", "application/at+jwt", "jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

fn signs(key: &Jwk) -> bool {
    let common = &key.common;
    let purpose = common.public_key_use.as_ref();
    let allowed = common.key_operations.as_ref();
    purpose.is_none_or(|of| *of == PublicKeyUse::Signature)
        && allowed.is_none_or(|all| all.contains(&KeyOperations::Verify))
}

fn is(own: KeyAlgorithm, header: &Header) -> bool {
    own.to_string() == format!("{:?}", header.alg)
}
