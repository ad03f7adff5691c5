//! An external provider that gives the tokens for MCP over HTTP in place of the built-in server:
//! `OpenID` Connect Discovery 1.0 or RFC 8414, JWT access tokens (RFC 9068), keys by RFC 7517.
//!
//! A token is believed when a key of the provider signed it, for this server (`aud`), by the
//! provider's name (`iss`), and its time has not run out. Who its subject is here is not for the
//! provider to say: see `identity/vouched.rs`.

mod claims;
mod keys;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use pinfold_auth::{ForeignToken, ScopeSet};
use pinfold_types::{Error, ErrorCode, Result, config::OidcConfig};

use self::{claims::Meant, keys::Keys};
use super::{identity::Vouched, oauth::scopes::offered, outside::Outside};

/// How far the clocks of others may be off (RFC 7519 §4.1.4).
const LEEWAY: Duration = Duration::from_secs(30);

/// The provider of the configuration.
#[derive(Debug)]
pub(crate) struct Oidc {
    issuer: String,
    resource: Option<String>,
    /// What the provider's words stand for.
    scopes: BTreeMap<String, ScopeSet>,
    keys: Keys,
}

impl Oidc {
    /// `None` where the configuration names none.
    ///
    /// # Errors
    /// When it gives a scope a meaning that is none.
    pub(crate) fn of(config: &OidcConfig) -> Result<Option<Self>> {
        let Some(issuer) = &config.issuer else { return Ok(None) };
        let mut meanings = BTreeMap::new();
        for (word, patterns) in &config.scopes {
            let meaning = ScopeSet::parse(patterns).map_err(|error| {
                let why = format!("oidc.scopes.{word}: {}", error.message);
                Error { hint: error.hint, ..Error::new(ErrorCode::InvalidArgument, why) }
            })?;
            meanings.insert(word.clone(), meaning.and(&offered()));
        }
        Ok(Some(Self {
            issuer: issuer.clone(),
            resource: config.resource.clone(),
            scopes: meanings,
            keys: Keys::new(issuer.clone(), Outside::new(&config.hosts)),
        }))
    }

    /// The provider, as it writes itself.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What its tokens have to be meant for, where the configuration says so.
    pub(crate) fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// What a client asks the provider for, to be able to ask for everything.
    pub(crate) fn offered(&self) -> Vec<String> {
        if self.scopes.is_empty() {
            return offered().names();
        }
        self.scopes.keys().cloned().collect()
    }

    /// Scopes of ours in the provider's words: the narrowest word for each, and those that have
    /// none as they are.
    pub(crate) fn in_its_words<'a>(&'a self, scopes: &'a str) -> BTreeSet<&'a str> {
        let word = |scope: &'a str| {
            let meaning = self.scopes.iter().filter(|(_, meaning)| meaning.allows(scope));
            let narrowest = meaning.min_by_key(|(_, meaning)| meaning.patterns().count());
            narrowest.map_or(scope, |(word, _)| word.as_str())
        };
        scopes.split(' ').map(word).collect()
    }

    /// What a token says, when the provider says it. `called` is what this server's `/mcp` was
    /// called.
    ///
    /// # Errors
    /// `unauthenticated` with the reason for the log; `unavailable` when the provider's keys cannot
    /// be had.
    pub(crate) async fn verify(
        &self,
        token: ForeignToken<'_>,
        called: &str,
        now: Timestamp,
    ) -> Result<Vouched> {
        let (header, key) = self.keys.of(token).await?;
        let meant = Meant { issuer: &self.issuer, resource: self.resource().unwrap_or(called) };
        let claims = claims::verified(token, &header, &key, &meant)?;
        let expires_at = claims.ends(now)?;
        Ok(Vouched {
            issuer: self.issuer.clone(),
            scopes: self.meaning(claims.words()),
            client: claims.client(),
            subject: claims.sub,
            expires_at,
        })
    }

    /// The provider's scopes in ours; words without a meaning are left out.
    fn meaning<'a>(&self, words: impl Iterator<Item = &'a str>) -> ScopeSet {
        let mut patterns: Vec<String> = Vec::new();
        for word in words {
            match self.scopes.get(word) {
                Some(meaning) => patterns.extend(meaning.patterns().map(str::to_owned)),
                None if ScopeSet::parse([word]).is_ok() => patterns.push(word.to_owned()),
                None => {}
            }
        }
        ScopeSet::recorded(&patterns).and(&offered())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oidc(scopes: &[(&str, &[&str])]) -> Result<Option<Oidc>> {
        let of = |(word, all): &(&str, &[&str])| {
            ((*word).to_owned(), all.iter().map(|text| (*text).to_owned()).collect())
        };
        Oidc::of(&OidcConfig {
            issuer: Some("https://id.example".into()),
            scopes: scopes.iter().map(of).collect(),
            ..OidcConfig::default()
        })
    }

    #[test]
    fn words_of_the_provider_mean_what_the_configuration_says_and_never_credentials() {
        let oidc = oidc(&[("pinfold", &["*"]), ("look", &["workspace:read", "token:create"])]);
        let oidc = oidc.expect("fine").expect("a provider");
        let meaning = |words: &[&str]| oidc.meaning(words.iter().copied());
        let all = meaning(&["openid", "pinfold"]);
        assert!(all.allows("exec:run") && !all.allows("token:create"), "{all:?}");
        assert!(meaning(&["openid", "profile"]).is_empty());
        let both = meaning(&["look", "exec:run", "audit:read"]);
        assert_eq!(both.patterns().collect::<Vec<_>>(), ["exec:run", "workspace:read"]);
        assert!(!meaning(&["*"]).allows("token:create"));
        let said = oidc.in_its_words("workspace:read exec:run snapshot:create");
        assert_eq!(said.into_iter().collect::<Vec<_>>(), ["look", "pinfold"]);
    }

    #[test]
    fn a_meaning_that_is_none_is_refused() {
        assert!(oidc(&[("a", &["nonsense"])]).is_err());
        assert!(Oidc::of(&OidcConfig::default()).expect("fine").is_none());
    }
}
