//! Principals and tokens: in memory to decide by, in the store to last.

mod browser;
mod granted;
mod mint;
mod record;
#[cfg(test)]
mod tests;
mod vouched;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering},
};

use jiff::Timestamp;
use pinfold_auth::{Authenticator, Principal, Surface, unauthenticated};
use pinfold_store::{Change, Store};
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result, TokenId,
    access::{Quota, TokenInfo},
};
use tokio_util::sync::CancellationToken;

use self::record::{Entry, TokenBody, entry, info, put, read};
pub(crate) use self::{
    granted::{Denied, Grantee, Issued, Redeemed, Renewed},
    record::PrincipalBody,
    vouched::{Known, Vouched},
};

const TOKEN: &str = "token";
const PRINCIPAL: &str = "principal";
/// Most tokens, revoked ones included, which are forgotten after a while.
const MAX_TOKENS: usize = 10_000;
/// Longest line of principals, each made by the one before.
const MAX_DEPTH: usize = 8;
/// A token's last use is recorded this often at most.
const USE_EVERY_MS: i64 = 60_000;

#[derive(Debug, Default)]
struct Tables {
    tokens: HashMap<TokenId, Arc<Entry>>,
    principals: HashMap<PrincipalId, PrincipalBody>,
}

impl Tables {
    /// Forgets a token, and ends what streams it still has.
    fn forget(&mut self, id: TokenId) -> Change {
        if let Some(entry) = self.tokens.remove(&id) {
            entry.ended.cancel();
        }
        Change::DeleteRecord { kind: TOKEN, id: id.to_string() }
    }

    fn has_room(&self) -> Result<()> {
        if self.tokens.len() < MAX_TOKENS {
            return Ok(());
        }
        let full = format!("there are {MAX_TOKENS} tokens already");
        Err(Error::new(ErrorCode::QuotaExceeded, full)
            .hint("revoke some; revoked ones are forgotten after 30 days"))
    }
}

/// Who there is.
#[derive(Debug)]
pub(crate) struct Identity {
    authenticator: Authenticator,
    default_quota: Quota,
    tables: RwLock<Tables>,
    store: Store,
    /// Held from a change in memory to its commit by whatever replaces a token's record, so that
    /// the last record on the disk is the last one in memory.
    replacing: tokio::sync::Mutex<()>,
    /// Held from a look at who is vouched for to the record that comes of it.
    vouching: tokio::sync::Mutex<()>,
}

impl Identity {
    pub(crate) async fn open(
        authenticator: Authenticator,
        default_quota: Quota,
        store: Store,
    ) -> Result<Self> {
        let mut tables = Tables::default();
        for (id, body) in store.records(PRINCIPAL).await? {
            tables.principals.insert(id.parse()?, read(PRINCIPAL, &id, &body)?);
        }
        for (id, body) in store.records(TOKEN).await? {
            let id: TokenId = id.parse()?;
            let body: TokenBody = read(TOKEN, &id.to_string(), &body)?;
            tables.tokens.insert(id, Arc::new(entry(id, body)?));
        }
        Ok(Self {
            authenticator,
            default_quota,
            tables: RwLock::new(tables),
            store,
            replacing: tokio::sync::Mutex::default(),
            vouching: tokio::sync::Mutex::default(),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// Whether anybody besides the owner of the unix socket can call.
    pub(crate) fn has_tokens(&self, now: Timestamp) -> bool {
        self.read().tokens.values().any(|entry| entry.stands(now))
    }

    /// Recognises a token.
    pub(crate) fn bearer(
        &self,
        presented: &str,
        surface: Surface,
        now: Timestamp,
    ) -> Result<Principal> {
        let tables = self.read();
        let mut found = None;
        let principal = self.authenticator.bearer(presented, surface, now, |id| {
            found = tables.tokens.get(&id);
            found.map(|entry| &entry.record)
        })?;
        let Some(entry) = found else { return Err(unauthenticated("a token without a record")) };
        if !entry.stands(now) {
            return Err(unauthenticated("a session that was idle for too long"));
        }
        let before = entry.used_ms.swap(now.as_millisecond(), Ordering::Relaxed);
        if now.as_millisecond() - before > USE_EVERY_MS {
            let mut body = entry.body.clone();
            body.last_used_at = Some(now);
            self.store.apply_relaxed(vec![put(TOKEN, &entry.record.id, &body)?]);
        }
        Ok(principal)
    }

    /// Ends when the principal's token does; never for one without a token.
    pub(crate) fn ended(&self, principal: &Principal) -> CancellationToken {
        let Some(id) = principal.token() else { return CancellationToken::new() };
        self.read().tokens.get(&id).map_or_else(
            || {
                let gone = CancellationToken::new();
                gone.cancel();
                gone
            },
            |entry| entry.ended.clone(),
        )
    }

    /// Ends the streams of tokens that have expired. Called a few times a second.
    pub(crate) fn sweep(&self, now: Timestamp) {
        for entry in self.read().tokens.values().filter(|entry| !entry.stands(now)) {
            entry.ended.cancel();
        }
    }

    /// A principal, who made it, who made that one, and so on to the owner.
    pub(crate) fn line(&self, principal: Option<PrincipalId>) -> Vec<PrincipalId> {
        let owner = self.authenticator.owner();
        let tables = self.read();
        let mut line = Vec::with_capacity(2);
        let mut next = principal.unwrap_or(owner);
        while line.len() <= MAX_DEPTH && next != owner {
            line.push(next);
            let Some(body) = tables.principals.get(&next) else { break };
            next = body.parent;
        }
        line.push(owner);
        line
    }

    /// The quota of a principal; that of one that is not known here is open.
    pub(crate) fn quota(&self, principal: PrincipalId) -> Quota {
        self.read().principals.get(&principal).map(|body| body.quota).unwrap_or_default()
    }

    /// Tokens that ended long ago make room. Fails when there are still too many.
    fn forget_old(&self, now: Timestamp) -> Result<Vec<Change>> {
        let mut tables = self.write();
        let old: Vec<TokenId> = tables
            .tokens
            .iter()
            .filter(|(_, entry)| entry.is_old(now))
            .map(|(id, _)| *id)
            .collect();
        let changes = old.into_iter().map(|id| tables.forget(id)).collect();
        tables.has_room()?;
        Ok(changes)
    }

    /// Every token that `sees` lets through, oldest first.
    pub(crate) fn tokens(&self, sees: impl Fn(PrincipalId) -> bool) -> Vec<TokenInfo> {
        let tables = self.read();
        let mut all: Vec<TokenInfo> = tables
            .tokens
            .values()
            .filter(|entry| sees(entry.body.principal) || sees(entry.body.maker))
            .map(|entry| info(entry, &tables))
            .collect();
        all.sort_unstable_by_key(|info| info.id);
        all
    }

    /// One token.
    pub(crate) fn token(&self, id: TokenId) -> Option<TokenInfo> {
        let tables = self.read();
        tables.tokens.get(&id).map(|entry| info(entry, &tables))
    }

    /// The only token with this name that stands, or the only one at all. One that was made with
    /// another of its name, as access tokens are, is meant with that one.
    pub(crate) fn named(&self, name: &str, now: Timestamp) -> Result<Option<TokenId>> {
        let tables = self.read();
        let has_it = |entry: &Arc<Entry>| entry.body.name == name;
        let made_with_one = |entry: &Arc<Entry>| {
            let parent = entry.body.parent.and_then(|parent| tables.tokens.get(&parent));
            parent.is_some_and(has_it)
        };
        let of = |stands: bool| {
            let named = tables.tokens.iter().filter(|(_, entry)| {
                has_it(entry) && entry.stands(now) == stands && !made_with_one(entry)
            });
            named.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        for stands in [true, false] {
            match of(stands).as_slice() {
                [] => {}
                [id] => return Ok(Some(*id)),
                _ => {
                    return Err(Error::new(
                        ErrorCode::Conflict,
                        format!("several tokens are called {name:?}"),
                    )
                    .hint("use the id: pinfold token ls"));
                }
            }
        }
        Ok(None)
    }

    /// Revokes a token and all that were made with it, and ends their streams. Returns how many
    /// stood. When this returns, no call with them is let in, now or after a crash.
    pub(crate) async fn revoke(&self, id: TokenId, now: Timestamp) -> Result<Vec<TokenId>> {
        self.revoke_all(vec![id], now).await
    }

    /// The same of several.
    async fn revoke_all(&self, ids: Vec<TokenId>, now: Timestamp) -> Result<Vec<TokenId>> {
        let _replacing = self.replacing.lock().await;
        let (revoked, changes) = {
            let mut tables = self.write();
            let mut revoked = ids;
            let mut next = 0;
            while let Some(parent) = revoked.get(next).copied() {
                next += 1;
                let below = tables.tokens.iter().filter(|(_, e)| e.body.parent == Some(parent));
                revoked.extend(below.map(|(id, _)| *id).collect::<Vec<_>>());
            }
            let mut changes = Vec::new();
            revoked.retain(|id| {
                let Some(entry) = tables.tokens.get(id) else { return false };
                let mut body = entry.body.clone();
                if body.revoked_at.is_some() {
                    // Whoever did that may not have seen it on the disk yet, or at all.
                    changes.extend(put(TOKEN, id, &body));
                    return false;
                }
                body.revoked_at = Some(now);
                entry.ended.cancel();
                let Ok(change) = put(TOKEN, id, &body) else { return false };
                let Ok(next) = entry.with(body) else { return false };
                changes.push(change);
                tables.tokens.insert(*id, Arc::new(next));
                true
            });
            (revoked, changes)
        };
        self.store.apply(changes).await?;
        Ok(revoked)
    }
}
