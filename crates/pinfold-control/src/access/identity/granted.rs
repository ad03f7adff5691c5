//! What people grant to clients of MCP over HTTP, and the tokens that come of it.
//!
//! A grant is a token of the class `refresh`: it is listed and revoked like any other, and ends
//! with the token behind the browser session in which it was given. Its record has, one after the
//! other, the hash of the code, and the hash of the refresh token that stands now. All refresh
//! tokens of a grant share the first half of their secret, of which a hash is kept too: one that
//! has the half and is not the last is an old one, and ends the grant, however old it is.

use std::sync::{Arc, atomic::Ordering};

use jiff::{SignedDuration, Timestamp};
use pinfold_auth::{Authority, CredentialClass, Principal, ScopeSet, Token, TokenHash};
use pinfold_store::Change;
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result, TokenId, access::TokenInfo, config::OauthConfig,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    Identity, TOKEN, Tables,
    record::{Entry, GrantBody, TokenBody, entry, hex, info, lasting, put, unhex},
};

/// How long a code stands (RFC 6749 §4.1.2 asks for ten minutes at most).
const CODE: SignedDuration = SignedDuration::from_secs(60);
/// Most access tokens of one grant that stand at once; the oldest make way.
const MOST_ACCESS: usize = 4;

/// To whom something is granted, and what.
#[derive(Clone, Debug)]
pub(crate) struct Grantee {
    /// The client's id.
    pub(crate) client: String,
    /// The client as people know it.
    pub(crate) shown: String,
    /// What the grant is called among tokens.
    pub(crate) name: String,
    pub(crate) redirect: String,
    pub(crate) challenge: String,
    pub(crate) resource: String,
    pub(crate) scopes: ScopeSet,
}

/// What a client shows for its first tokens.
#[derive(Debug)]
pub(crate) struct Redeemed<'a> {
    pub(crate) code: &'a str,
    pub(crate) client: &'a str,
    pub(crate) redirect: Option<&'a str>,
    pub(crate) verifier: &'a str,
    pub(crate) resource: Option<&'a str>,
}

/// What a client shows for its next tokens.
#[derive(Debug)]
pub(crate) struct Renewed<'a> {
    pub(crate) token: &'a str,
    pub(crate) client: &'a str,
    /// Fewer than were granted.
    pub(crate) scopes: Option<&'a ScopeSet>,
    pub(crate) resource: Option<&'a str>,
}

/// Tokens that a client is given.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) access: Zeroizing<String>,
    pub(crate) refresh: Zeroizing<String>,
    pub(crate) expires_in: SignedDuration,
    pub(crate) scopes: ScopeSet,
    /// The grant.
    pub(crate) grant: TokenId,
    /// The access token.
    pub(crate) made: TokenId,
    pub(crate) principal: PrincipalId,
    pub(crate) fingerprint: String,
}

/// Why a client is given none.
#[derive(Debug)]
pub(crate) enum Denied {
    /// What it shows does not stand, or is not its own.
    Invalid(&'static str),
    /// It asks for more than was granted.
    Scope,
    /// It asks for another resource.
    Resource,
    /// A code or token was shown that had been used before: the grant has ended.
    Reused(TokenId, PrincipalId),
    /// A fault of ours.
    Failed(Error),
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A refusal that may end the grant.
struct Refusal {
    denied: Denied,
    ends: Option<TokenId>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { denied: error.into(), ends: None }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let ends = match denied {
            Denied::Reused(grant, _) => Some(grant),
            _ => None,
        };
        Self { denied, ends }
    }
}

impl Identity {
    /// Grants to a client, and gives the code that it exchanges.
    pub(crate) async fn consent(
        &self,
        person: &Principal,
        grantee: Grantee,
        life: &OauthConfig,
        now: Timestamp,
    ) -> Result<(Zeroizing<String>, TokenInfo)> {
        let mine = person.authority();
        let authority = Authority { scopes: grantee.scopes, ..mine.clone() };
        if !mine.covers(&authority) || authority.operations.is_some() {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "nobody grants more than they may themselves",
            ));
        }
        // What a browser granted outlives the browser's session: it ends with what that came of.
        let (parent, end) = {
            let tables = self.read();
            let entry = |id: TokenId| tables.tokens.get(&id);
            let parent = match person.class() {
                CredentialClass::Browser => {
                    person.token().and_then(entry).and_then(|browser| browser.body.parent)
                }
                _ => person.token(),
            };
            (parent, parent.and_then(entry).and_then(|parent| parent.body.expires_at))
        };
        let code = Token::generate(CredentialClass::Code)?;
        let hash = self.authenticator.hash(&code);
        let until = end.into_iter().chain([now + lasting(life.max_ms)]).min();
        // No refresh token has the code's hash: the class is part of what is hashed.
        let body = TokenBody {
            name: grantee.name,
            parent,
            session: person.session(),
            expires_at: until.into_iter().chain([now + CODE]).min(),
            granted: Some(GrantBody {
                client: grantee.client,
                shown: grantee.shown,
                redirect: grantee.redirect,
                challenge: grantee.challenge,
                resource: grantee.resource,
                code: hex(hash.as_bytes()),
                until,
                family: None,
            }),
            ..TokenBody::new(CredentialClass::Refresh, &hash, person.id(), authority, now)
        };
        let info = self.admit(entry(code.id(), body)?, None, now).await?;
        Ok((code.reveal(), info))
    }

    /// Exchanges a code, once, for the first tokens of a grant.
    pub(crate) async fn exchange(
        &self,
        shown: &Redeemed<'_>,
        allowed: impl Fn(PrincipalId) -> bool,
        life: &OauthConfig,
        now: Timestamp,
    ) -> Result<Issued, Denied> {
        let code = of_class(shown.code, CredentialClass::Code)?;
        let replacing = self.replacing.lock().await;
        let exchanged = {
            let mut tables = self.write();
            self.exchange_in(&mut tables, &code, shown, allowed, life, now)
        };
        self.conclude(exchanged, replacing, now).await
    }

    fn exchange_in(
        &self,
        tables: &mut Tables,
        code: &Token,
        shown: &Redeemed<'_>,
        allowed: impl Fn(PrincipalId) -> bool,
        life: &OauthConfig,
        now: Timestamp,
    ) -> Result<(Issued, Vec<Change>), Refusal> {
        let (entry, granted) = granted(tables, code.id())?;
        if !same(&granted.code, &self.authenticator.hash(code)) {
            return Err(Denied::Invalid("no such code").into());
        }
        let principal = entry.body.principal;
        if granted.family.is_some() {
            return Err(Denied::Reused(code.id(), principal).into());
        }
        if !entry.stands(now) {
            return Err(Denied::Invalid("a code that is over").into());
        }
        // Whoever shows a code that stands and cannot say the rest has it from somebody else: it
        // is of no use to anybody from now on.
        let burnt = |denied| Refusal { denied, ends: Some(code.id()) };
        if granted.client != shown.client {
            return Err(burnt(Denied::Invalid("the code of another client")));
        }
        if shown.redirect.is_some_and(|redirect| redirect != granted.redirect) {
            return Err(burnt(Denied::Invalid("the redirect_uri is not the one of the code")));
        }
        if !proves(shown.verifier, &granted.challenge) {
            return Err(burnt(Denied::Invalid("the code_verifier does not fit the challenge")));
        }
        if shown.resource.is_some_and(|resource| resource != granted.resource) {
            return Err(burnt(Denied::Resource));
        }
        if !allowed(principal) {
            return Err(burnt(Denied::Invalid("whoever granted it may not log in any more")));
        }
        let refresh = Token::generate_for(CredentialClass::Refresh, code.id())?;
        let mut body = entry.body.clone();
        body.expires_at = granted.until;
        body.idle_ms = Some(i64::try_from(life.idle_ms).unwrap_or(i64::MAX));
        if let Some(granted) = &mut body.granted {
            granted.family = Some(hex(self.authenticator.family(&refresh).as_bytes()));
        }
        let scopes = entry.record.authority.scopes.clone();
        self.hand_out(tables, body, &refresh, scopes, life, now)
    }

    /// Gives new tokens for the refresh token that stands.
    pub(crate) async fn refresh(
        &self,
        shown: &Renewed<'_>,
        allowed: impl Fn(PrincipalId) -> bool,
        life: &OauthConfig,
        now: Timestamp,
    ) -> Result<Issued, Denied> {
        let token = of_class(shown.token, CredentialClass::Refresh)?;
        let replacing = self.replacing.lock().await;
        let refreshed = {
            let mut tables = self.write();
            self.refresh_in(&mut tables, &token, shown, allowed, life, now)
        };
        self.conclude(refreshed, replacing, now).await
    }

    fn refresh_in(
        &self,
        tables: &mut Tables,
        token: &Token,
        shown: &Renewed<'_>,
        allowed: impl Fn(PrincipalId) -> bool,
        life: &OauthConfig,
        now: Timestamp,
    ) -> Result<(Issued, Vec<Change>), Refusal> {
        let (entry, granted) = granted(tables, token.id())?;
        let family = granted.family.as_deref().unwrap_or_default();
        if !same(family, &self.authenticator.family(token)) {
            return Err(Denied::Invalid("no such refresh token").into());
        }
        let principal = entry.body.principal;
        if !entry.record.hash.matches(&self.authenticator.hash(token)) {
            return Err(Denied::Reused(token.id(), principal).into());
        }
        if !entry.stands(now) {
            return Err(Denied::Invalid("a refresh token that has ended").into());
        }
        if granted.client != shown.client {
            return Err(Denied::Invalid("the refresh token of another client").into());
        }
        if shown.resource.is_some_and(|resource| resource != granted.resource) {
            return Err(Denied::Resource.into());
        }
        if !allowed(principal) {
            let denied = Denied::Invalid("whoever granted it may not log in any more");
            return Err(Refusal { denied, ends: Some(token.id()) });
        }
        let mine = &entry.record.authority.scopes;
        let scopes = match shown.scopes {
            None => mine.clone(),
            Some(wanted) if mine.covers(wanted) => wanted.clone(),
            Some(_) => return Err(Denied::Scope.into()),
        };
        let body = entry.body.clone();
        self.hand_out(tables, body, &token.successor()?, scopes, life, now)
    }

    /// Makes `refresh` the one that stands, and an access token.
    fn hand_out(
        &self,
        tables: &mut Tables,
        mut body: TokenBody,
        refresh: &Token,
        scopes: ScopeSet,
        life: &OauthConfig,
        now: Timestamp,
    ) -> Result<(Issued, Vec<Change>), Refusal> {
        let grant = refresh.id();
        let access = Token::generate(CredentialClass::Mcp)?;
        body.hash = hex(self.authenticator.hash(refresh).as_bytes());
        body.last_used_at = Some(now);
        let end = body.expires_at.into_iter().chain([now + lasting(life.access_ms)]).min();
        let end = end.unwrap_or(now);
        let child = TokenBody {
            class: CredentialClass::Mcp,
            hash: hex(self.authenticator.hash(&access).as_bytes()),
            parent: Some(grant),
            scopes: scopes.names(),
            created_at: now,
            expires_at: Some(end),
            idle_ms: None,
            last_used_at: None,
            granted: None,
            ..body.clone()
        };
        let mut changes = vec![put(TOKEN, &grant, &body)?, put(TOKEN, &access.id(), &child)?];
        changes.extend(make_room(tables, grant, now)?);
        let before = tables.tokens.get(&grant).ok_or(Denied::Invalid("a grant that is gone"))?;
        let next = before.with(body)?;
        next.used_ms.store(now.as_millisecond(), Ordering::Relaxed);
        let child = entry(access.id(), child)?;
        let issued = Issued {
            access: access.reveal(),
            refresh: refresh.reveal(),
            expires_in: end.duration_since(now),
            scopes,
            grant,
            made: access.id(),
            principal: child.body.principal,
            fingerprint: child.record.hash.fingerprint(),
        };
        tables.tokens.insert(grant, Arc::new(next));
        tables.tokens.insert(access.id(), Arc::new(child));
        Ok((issued, changes))
    }

    /// Waits until what was handed out is on the disk, or ends the grant.
    async fn conclude(
        &self,
        done: Result<(Issued, Vec<Change>), Refusal>,
        replacing: tokio::sync::MutexGuard<'_, ()>,
        now: Timestamp,
    ) -> Result<Issued, Denied> {
        match done {
            Ok((issued, changes)) => {
                self.store.apply(changes).await?;
                drop(replacing);
                Ok(issued)
            }
            Err(Refusal { denied, ends }) => {
                drop(replacing);
                if let Some(grant) = ends {
                    self.revoke(grant, now).await?;
                }
                Err(denied)
            }
        }
    }

    /// Revokes what a client shows (RFC 7009): its grant by any refresh token of it, or one access
    /// token. What is not a token of this client's is left alone, and nobody is told.
    pub(crate) async fn revoke_shown(
        &self,
        presented: &str,
        client: &str,
        now: Timestamp,
    ) -> Result<Option<TokenInfo>> {
        let Ok(token) = presented.parse::<Token>() else { return Ok(None) };
        let found = {
            let tables = self.read();
            let entry = tables.tokens.get(&token.id());
            entry.and_then(|entry| {
                let grant = match token.class() {
                    CredentialClass::Refresh => entry,
                    CredentialClass::Mcp => tables.tokens.get(&entry.body.parent?)?,
                    _ => return None,
                };
                let granted = grant.body.granted.as_ref().filter(|of| of.client == client)?;
                let own = match token.class() {
                    CredentialClass::Refresh => {
                        same(granted.family.as_deref()?, &self.authenticator.family(&token))
                    }
                    _ => {
                        entry.record.class == CredentialClass::Mcp
                            && entry.record.hash.matches(&self.authenticator.hash(&token))
                    }
                };
                own.then(|| info(entry, &tables))
            })
        };
        if let Some(found) = &found {
            self.revoke(found.id, now).await?;
        }
        Ok(found)
    }

    /// Whether anything that was granted to this client stands.
    pub(crate) fn has_grants(&self, client: &str, now: Timestamp) -> bool {
        self.read().tokens.values().any(|entry| {
            entry.body.granted.as_ref().is_some_and(|granted| granted.client == client)
                && entry.stands(now)
        })
    }
}

/// The grant with this id.
fn granted(tables: &Tables, id: TokenId) -> Result<(&Arc<Entry>, &GrantBody), Denied> {
    let entry = tables.tokens.get(&id).ok_or(Denied::Invalid("no such grant"))?;
    let granted = entry.body.granted.as_ref().ok_or(Denied::Invalid("no grant"))?;
    Ok((entry, granted))
}

fn of_class(text: &str, class: CredentialClass) -> Result<Token, Denied> {
    let token: Token = text.parse().map_err(|_| Denied::Invalid("not the text of a token"))?;
    if token.class() == class {
        Ok(token)
    } else {
        Err(Denied::Invalid("a token of another class"))
    }
}

fn same(recorded: &str, shown: &TokenHash) -> bool {
    unhex(recorded).is_some_and(|hash| TokenHash::from_bytes(hash).matches(shown))
}

/// Removes access tokens of a grant that have ended, and the oldest of those that stand when there
/// are many.
fn make_room(tables: &mut Tables, grant: TokenId, now: Timestamp) -> Result<Vec<Change>, Denied> {
    let of = tables.tokens.iter().filter(|(_, entry)| entry.body.parent == Some(grant));
    let mut own: Vec<_> = of.map(|(id, entry)| (*id, Arc::clone(entry))).collect();
    own.sort_unstable_by_key(|(id, entry)| (entry.stands(now), *id));
    let standing = own.iter().filter(|(_, entry)| entry.stands(now)).count();
    let gone = own.len() - standing + (standing + 1).saturating_sub(MOST_ACCESS);
    let changes = own.into_iter().take(gone).map(|(id, _)| tables.forget(id)).collect();
    tables.has_room()?;
    Ok(changes)
}

/// Whether the verifier is the one that the challenge was made of (RFC 7636 §4.6, S256).
fn proves(verifier: &str, challenge: &str) -> bool {
    let fine = (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    let digest = Sha256::digest(verifier.as_bytes());
    fine && data_encoding::BASE64URL_NOPAD.encode(&digest) == challenge
}
