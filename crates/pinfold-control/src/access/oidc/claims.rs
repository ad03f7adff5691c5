//! What a token says, and whether it may be believed.

use std::collections::HashSet;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode};
use pinfold_auth::{ForeignToken, unauthenticated};
use pinfold_types::{Result, name::excerpt};
use serde::Deserialize;

use super::LEEWAY;

/// Longest name of a subject, as for who is named here.
const MAX_SUBJECT_BYTES: usize = 255;
/// Most scopes that are looked at.
const MAX_WORDS: usize = 256;

/// Algorithms that are believed (RFC 7518 §3.1, RFC 8037): a key of the provider's own, which
/// nobody else has. None with a shared secret, and never `none`.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// By whom and for whom a token has to be.
#[derive(Debug)]
pub(super) struct Meant<'a> {
    pub(super) issuer: &'a str,
    pub(super) resource: &'a str,
}

/// The claims that count (RFC 9068 §2.2). Others are nothing to us.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    exp: f64,
    #[serde(default)]
    client_id: Option<String>,
    /// What some write for `client_id`.
    #[serde(default)]
    azp: Option<String>,
    #[serde(default)]
    scope: Option<Words>,
    /// What some write for `scope`.
    #[serde(default)]
    scp: Option<Words>,
    /// The key that a caller has to have besides (RFC 7800).
    #[serde(default)]
    cnf: Option<serde_json::Value>,
}

/// Scopes: words with spaces between (RFC 8693 §4.2), or a list, as some write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

impl Words {
    fn iter(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Text(text) => Box::new(text.split(' ')),
            Self::List(list) => Box::new(list.iter().map(String::as_str)),
        }
    }
}

impl Claims {
    /// The scopes that were granted.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        let words = self.scope.iter().chain(&self.scp).flat_map(Words::iter);
        words.filter(|word| !word.is_empty()).take(MAX_WORDS)
    }

    /// The client that it was given to, fit to be shown.
    pub(super) fn client(&self) -> String {
        let name = self.client_id.as_deref().or(self.azp.as_deref()).unwrap_or("a client");
        super::super::oauth::shown_name(name)
    }

    /// When it ends: that lies before us.
    #[expect(clippy::cast_possible_truncation, reason = "a number beyond i64 is no time")]
    pub(super) fn ends(&self, now: Timestamp) -> Result<Timestamp> {
        let end = Timestamp::from_second(self.exp as i64)
            .map_err(|_| unauthenticated("a provider's token that ends at no time"))?;
        // The leeway is for the moment when it is first shown.
        Ok(end.max(now + jiff::SignedDuration::from_secs(1)))
    }
}

/// Believes a token or refuses it.
pub(super) fn verified(
    token: ForeignToken<'_>,
    header: &Header,
    key: &DecodingKey,
    meant: &Meant<'_>,
) -> Result<Claims> {
    let mut wanted = Validation::new(header.alg);
    wanted.leeway = LEEWAY.as_secs();
    wanted.validate_nbf = true;
    wanted.set_issuer(&[meant.issuer]);
    wanted.set_audience(&[meant.resource]);
    wanted.required_spec_claims = HashSet::from(["exp", "iss", "aud", "sub"].map(str::to_owned));
    let claims = decode::<Claims>(token.text(), key, &wanted)
        .map_err(|error| unauthenticated(&format!("a provider's token: {error}")))?
        .claims;
    if claims.cnf.is_some() {
        // Taken without that proof, it would be worth more to a thief than its maker meant.
        return Err(unauthenticated("a provider's token that is bound to a key"));
    }
    let visible = claims.sub.bytes().all(|b| b.is_ascii_graphic());
    if claims.sub.is_empty() || claims.sub.len() > MAX_SUBJECT_BYTES || !visible {
        let subject = excerpt(&claims.sub);
        return Err(unauthenticated(&format!("a provider's token of a subject {subject:?}")));
    }
    Ok(claims)
}
