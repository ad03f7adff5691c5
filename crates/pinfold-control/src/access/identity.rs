//! Principals and tokens: in memory to decide by, in the store to last.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use pinfold_auth::{
    Authenticator, Authority, CredentialClass, Principal, SELF_OPERATIONS, ScopeSet, Surface,
    Token, TokenHash, TokenRecord, unauthenticated,
};
use pinfold_store::{Change, Store};
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result, SessionId, TokenId, WorkspaceId,
    access::{CreateToken, NewToken, Quota, Reach, TokenInfo},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "token";
const PRINCIPAL: &str = "principal";
/// Most tokens, revoked ones included; those end after [`KEPT`].
const MAX_TOKENS: usize = 10_000;
/// Longest line of principals, each made by the one before.
const MAX_DEPTH: usize = 8;
/// How long a token that was revoked or has expired is still listed.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 30);
/// How long a boot may take from its token to the moment when its workspace is seen.
const BEING_MADE: SignedDuration = SignedDuration::from_mins(1);
/// A token's last use is recorded this often at most.
const USE_EVERY_MS: i64 = 60_000;

/// A principal besides the owner, as recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PrincipalBody {
    pub(crate) name: String,
    pub(crate) parent: PrincipalId,
    #[serde(default)]
    pub(crate) quota: Quota,
    created_at: Timestamp,
}

/// A token, as recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct TokenBody {
    name: String,
    class: CredentialClass,
    /// Keyed hash, hexadecimal.
    hash: String,
    principal: PrincipalId,
    maker: PrincipalId,
    /// The token that it was made with, which it does not outlive.
    parent: Option<TokenId>,
    scopes: Vec<String>,
    reach: Reach,
    workspaces: Option<BTreeSet<WorkspaceId>>,
    /// Of a workspace's own token: the workspace and the boot that it ends with.
    own: Option<(WorkspaceId, u64)>,
    session: Option<SessionId>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Entry {
    body: TokenBody,
    record: TokenRecord,
    used_ms: AtomicI64,
    /// Of a workspace's own token: the workspace has been there since it was made.
    seen: AtomicBool,
    /// Cancelled when the token ends: its streams end with it.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Tables {
    tokens: HashMap<TokenId, Arc<Entry>>,
    principals: HashMap<PrincipalId, PrincipalBody>,
}

/// Who there is.
#[derive(Debug)]
pub(crate) struct Identity {
    authenticator: Authenticator,
    default_quota: Quota,
    tables: RwLock<Tables>,
    store: Store,
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
        Ok(Self { authenticator, default_quota, tables: RwLock::new(tables), store })
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

    /// Makes a token and, unless it stands for its maker, a principal for it. `workspaces` are those
    /// that it is bound to, looked up.
    pub(crate) async fn mint(
        &self,
        maker: &Principal,
        request: &CreateToken,
        workspaces: BTreeSet<WorkspaceId>,
        now: Timestamp,
    ) -> Result<NewToken> {
        request.check()?;
        let mine = maker.authority();
        let scopes = if request.scopes.is_empty() {
            mine.scopes.clone()
        } else {
            ScopeSet::parse(&request.scopes)?
        };
        let bound = if workspaces.is_empty() { mine.workspaces.clone() } else { Some(workspaces) };
        let authority = Authority {
            scopes,
            reach: request.reach,
            workspaces: bound,
            operations: mine.operations,
        };
        if !mine.covers(&authority) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "a token may not be wider than the one it is made with",
            )
            .hint(
                "leave out scopes, workspaces and reach to see what you have: GET /api/v1/whoami",
            ));
        }
        let expires_at = request
            .expires_ms
            .map(|ms| now + SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)))
            .into_iter()
            .chain(maker.expires_at())
            .min();
        let token = Token::generate(CredentialClass::Api)?;
        let hash = self.authenticator.hash(&token);
        let principal = if request.same_principal { maker.id() } else { PrincipalId::generate() };
        let body = TokenBody {
            name: request.name.clone(),
            class: CredentialClass::Api,
            hash: HEXLOWER.encode(hash.as_bytes()),
            principal,
            maker: maker.id(),
            parent: maker.token(),
            scopes: authority.scopes.patterns().map(str::to_owned).collect(),
            reach: authority.reach,
            workspaces: authority.workspaces,
            own: None,
            session: None,
            created_at: now,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        let mut changes = vec![put(TOKEN, &token.id(), &body)?];
        let made = (!request.same_principal).then(|| PrincipalBody {
            name: request.name.clone(),
            parent: maker.id(),
            quota: if request.quota.is_open() { self.default_quota } else { request.quota },
            created_at: now,
        });
        if let Some(made) = &made {
            if self.line(Some(maker.id())).len() >= MAX_DEPTH {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!("tokens made with tokens go {MAX_DEPTH} deep at most"),
                ));
            }
            changes.push(put(PRINCIPAL, &principal, made)?);
        }
        let entry = Arc::new(entry(token.id(), body)?);
        changes.extend(self.forget_old(now)?);
        self.store.apply(changes).await?;
        let (info, orphan) = {
            let mut tables = self.write();
            if let Some(made) = made {
                tables.principals.insert(principal, made);
            }
            // Whoever revoked the maker's token meanwhile meant this one too.
            let orphan = maker
                .token()
                .is_some_and(|id| tables.tokens.get(&id).is_none_or(|parent| !parent.stands(now)));
            let info = info(&entry, &tables);
            tables.tokens.insert(token.id(), entry);
            (info, orphan)
        };
        if orphan {
            self.revoke(token.id(), now).await?;
            return Err(unauthenticated("the maker's token was revoked meanwhile"));
        }
        Ok(NewToken { token: token.reveal().to_string(), info })
    }

    /// Tokens that ended long ago make room. Fails when there are still too many.
    fn forget_old(&self, now: Timestamp) -> Result<Vec<Change>> {
        let mut tables = self.write();
        let old: Vec<TokenId> = tables
            .tokens
            .iter()
            .filter(|(_, entry)| {
                entry.ended_at(now).is_some_and(|at| now.duration_since(at) > KEPT)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &old {
            tables.tokens.remove(id);
        }
        if tables.tokens.len() >= MAX_TOKENS {
            return Err(Error::new(
                ErrorCode::QuotaExceeded,
                format!("there are {MAX_TOKENS} tokens already"),
            )
            .hint("revoke some; revoked ones are forgotten after 30 days"));
        }
        Ok(old
            .into_iter()
            .map(|id| Change::DeleteRecord { kind: TOKEN, id: id.to_string() })
            .collect())
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

    /// The only token with this name that stands, or the only one at all.
    pub(crate) fn named(&self, name: &str, now: Timestamp) -> Result<Option<TokenId>> {
        let tables = self.read();
        let of = |stands: bool| {
            let named = tables
                .tokens
                .iter()
                .filter(move |(_, entry)| entry.body.name == name && entry.stands(now) == stands);
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
        let (revoked, changes) = {
            let mut tables = self.write();
            let mut revoked = vec![id];
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
                let mut record = entry.record.clone();
                record.revoked_at = Some(now);
                entry.ended.cancel();
                if let Ok(change) = put(TOKEN, id, &body) {
                    changes.push(change);
                }
                let used_ms = AtomicI64::new(entry.used_ms.load(Ordering::Relaxed));
                let ended = entry.ended.clone();
                tables.tokens.insert(
                    *id,
                    Arc::new(Entry { body, record, used_ms, seen: AtomicBool::new(true), ended }),
                );
                true
            });
            (revoked, changes)
        };
        self.store.apply(changes).await?;
        Ok(revoked)
    }

    /// A token for the programs of one workspace, for this boot of it (AUTH-08).
    pub(crate) async fn mint_own(
        &self,
        workspace: WorkspaceId,
        boot: u64,
        holder: Option<PrincipalId>,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<NewToken> {
        let token = Token::generate(CredentialClass::Workspace)?;
        let principal = PrincipalId::generate();
        let maker = holder.unwrap_or_else(|| self.authenticator.owner());
        let scopes: BTreeSet<&str> = pinfold_auth::OPERATIONS
            .iter()
            .filter(|op| SELF_OPERATIONS.contains(&op.name))
            .map(|op| op.scope)
            .collect();
        let body = TokenBody {
            name: workspace.to_string(),
            class: CredentialClass::Workspace,
            hash: HEXLOWER.encode(self.authenticator.hash(&token).as_bytes()),
            principal,
            maker,
            parent: None,
            scopes: scopes.into_iter().map(str::to_owned).collect(),
            reach: Reach::Own,
            workspaces: Some([workspace].into()),
            own: Some((workspace, boot)),
            session: None,
            created_at: now,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        let made = PrincipalBody {
            name: workspace.to_string(),
            parent: maker,
            quota: Quota::default(),
            created_at: now,
        };
        let mut changes = vec![put(TOKEN, &token.id(), &body)?, put(PRINCIPAL, &principal, &made)?];
        let entry = Arc::new(entry(token.id(), body)?);
        changes.extend(self.forget_old(now)?);
        self.store.apply(changes).await?;
        let mut tables = self.write();
        tables.principals.insert(principal, made);
        let info = info(&entry, &tables);
        tables.tokens.insert(token.id(), entry);
        Ok(NewToken { token: token.reveal().to_string(), info })
    }

    /// Revokes the tokens of workspaces whose boot has ended. `stands` knows whether it has;
    /// `None` where there is no such workspace, or not yet: one is given its token before it is
    /// there to be seen.
    pub(crate) async fn end_own(
        &self,
        stands: impl Fn(WorkspaceId, u64) -> Option<bool>,
        now: Timestamp,
    ) -> Result<()> {
        let over = |entry: &Entry| {
            let Some((workspace, boot)) = entry.body.own else { return false };
            match stands(workspace, boot) {
                Some(stands) => {
                    entry.seen.store(true, Ordering::Relaxed);
                    !stands
                }
                None => {
                    entry.seen.load(Ordering::Relaxed)
                        || now.duration_since(entry.body.created_at) > BEING_MADE
                }
            }
        };
        let ended: Vec<TokenId> = self
            .read()
            .tokens
            .iter()
            .filter(|(_, entry)| entry.stands(now) && over(entry))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.revoke(id, now).await?;
        }
        Ok(())
    }
}

impl Entry {
    fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        let expired = self.body.expires_at.filter(|end| *end <= now);
        self.body.revoked_at.into_iter().chain(expired).min()
    }

    fn stands(&self, now: Timestamp) -> bool {
        self.ended_at(now).is_none()
    }
}

fn entry(id: TokenId, body: TokenBody) -> Result<Entry> {
    let hash = HEXLOWER.decode(body.hash.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
    let hash = hash
        .ok_or_else(|| Error::internal(format!("the record of token {id} has no usable hash")))?;
    let record = TokenRecord {
        id,
        class: body.class,
        hash: TokenHash::from_bytes(hash),
        principal: body.principal,
        name: body.name.clone(),
        authority: Authority {
            scopes: ScopeSet::recorded(&body.scopes),
            reach: body.reach,
            workspaces: body.workspaces.clone(),
            operations: body.own.map(|_| SELF_OPERATIONS),
        },
        workspace: body.own.map(|(workspace, _)| workspace),
        session: body.session,
        expires_at: body.expires_at,
        revoked_at: body.revoked_at,
    };
    let used_ms = AtomicI64::new(body.last_used_at.map_or(i64::MIN / 2, Timestamp::as_millisecond));
    Ok(Entry {
        body,
        record,
        used_ms,
        seen: AtomicBool::new(false),
        ended: CancellationToken::new(),
    })
}

fn info(entry: &Entry, tables: &Tables) -> TokenInfo {
    let body = &entry.body;
    let used = entry.used_ms.load(Ordering::Relaxed);
    TokenInfo {
        id: entry.record.id,
        name: body.name.clone(),
        class: body.class.word().to_owned(),
        principal: body.principal,
        maker: body.maker,
        scopes: body.scopes.clone(),
        workspaces: body.workspaces.iter().flatten().copied().collect(),
        reach: body.reach,
        quota: tables.principals.get(&body.principal).map(|p| p.quota).unwrap_or_default(),
        fingerprint: entry.record.hash.fingerprint(),
        created_at: body.created_at,
        expires_at: body.expires_at,
        last_used_at: Timestamp::from_millisecond(used).ok().filter(|at| *at >= body.created_at),
        revoked_at: body.revoked_at,
    }
}

fn read<T: DeserializeOwned>(kind: &str, id: &str, body: &str) -> Result<T> {
    serde_json::from_str(body)
        .map_err(|err| Error::internal(format!("the record of {kind} {id} is damaged: {err}")))
}

fn put(kind: &'static str, id: &impl ToString, body: &impl Serialize) -> Result<Change> {
    let body = serde_json::to_string(body).map_err(Error::internal)?;
    Ok(Change::PutRecord { kind, id: id.to_string(), body })
}
