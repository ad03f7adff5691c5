//! Principals and tokens as they are recorded, and what is made of a record.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
};

use jiff::{SignedDuration, Timestamp};
use pinfold_auth::{Authority, CredentialClass, SELF_OPERATIONS, ScopeSet, TokenHash, TokenRecord};
use pinfold_store::Change;
use pinfold_types::{
    Error, PrincipalId, Result, SessionId, TokenId, WorkspaceId,
    access::{Quota, Reach, TokenInfo},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::Tables;

/// How long a token that was revoked or has expired is still listed.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 30);
/// The same of what is made by the dozen: access tokens, and codes that nobody took.
const KEPT_SHORT: SignedDuration = SignedDuration::from_hours(1);

/// A principal besides the owner, as recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PrincipalBody {
    pub(crate) name: String,
    pub(crate) parent: PrincipalId,
    #[serde(default)]
    pub(crate) quota: Quota,
    pub(super) created_at: Timestamp,
}

/// A token, as recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TokenBody {
    pub(super) name: String,
    pub(super) class: CredentialClass,
    /// Keyed hash, hexadecimal.
    pub(super) hash: String,
    pub(super) principal: PrincipalId,
    pub(super) maker: PrincipalId,
    /// The token that it was made with, which it does not outlive.
    pub(super) parent: Option<TokenId>,
    pub(super) scopes: Vec<String>,
    pub(super) reach: Reach,
    pub(super) workspaces: Option<BTreeSet<WorkspaceId>>,
    /// Of a workspace's own token: the workspace and the boot that it ends with.
    pub(super) own: Option<(WorkspaceId, u64)>,
    pub(super) session: Option<SessionId>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    /// It ends this long after its last use.
    #[serde(default)]
    pub(super) idle_ms: Option<i64>,
    pub(super) last_used_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
    /// Of what a client of MCP over HTTP was granted.
    #[serde(default)]
    pub(super) granted: Option<GrantBody>,
    /// Of somebody of an external provider, and of that provider's tokens for them.
    #[serde(default)]
    pub(super) vouched: Option<VouchedBody>,
}

/// For whom another provider vouches, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VouchedBody {
    pub(super) issuer: String,
    pub(super) subject: String,
    /// Of a token: the client that it was given to.
    pub(super) client: Option<String>,
}

impl TokenBody {
    /// A token of this principal's own, with these rights, which ends with nothing else and never.
    pub(super) fn new(
        class: CredentialClass,
        hash: &TokenHash,
        principal: PrincipalId,
        authority: Authority,
        now: Timestamp,
    ) -> Self {
        Self {
            name: String::new(),
            class,
            hash: hex(hash.as_bytes()),
            principal,
            maker: principal,
            parent: None,
            scopes: authority.scopes.names(),
            reach: authority.reach,
            workspaces: authority.workspaces,
            own: None,
            session: None,
            created_at: now,
            expires_at: None,
            idle_ms: None,
            last_used_at: None,
            revoked_at: None,
            granted: None,
            vouched: None,
        }
    }
}

/// A time of the configuration, in milliseconds.
pub(super) fn lasting(ms: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// What a person granted to a client, as recorded with the grant's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GrantBody {
    pub(super) client: String,
    /// The client as people know it: what it calls itself, and where it is from.
    pub(super) shown: String,
    pub(super) redirect: String,
    /// SHA-256 of the verifier, base64url (RFC 7636).
    pub(super) challenge: String,
    pub(super) resource: String,
    /// Keyed hash of the code.
    pub(super) code: String,
    /// When it ends, once the code was exchanged.
    pub(super) until: Option<Timestamp>,
    /// Keyed hash of what all refresh tokens of it have in common; absent until there is one.
    pub(super) family: Option<String>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) body: TokenBody,
    pub(super) record: TokenRecord,
    pub(super) used_ms: AtomicI64,
    /// Of a workspace's own token: the workspace has been there since it was made.
    pub(super) seen: AtomicBool,
    /// Cancelled when the token ends: its streams end with it.
    pub(super) ended: CancellationToken,
}

impl Entry {
    /// When it ends by the clock.
    fn expires_at(&self) -> Option<Timestamp> {
        let used = self.used_ms.load(Ordering::Relaxed).max(self.body.created_at.as_millisecond());
        let idle = self
            .body
            .idle_ms
            .and_then(|ms| Timestamp::from_millisecond(used.saturating_add(ms)).ok());
        self.body.expires_at.into_iter().chain(idle).min()
    }

    pub(super) fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        let expired = self.expires_at().filter(|end| *end <= now);
        self.body.revoked_at.into_iter().chain(expired).min()
    }

    pub(super) fn stands(&self, now: Timestamp) -> bool {
        self.ended_at(now).is_none()
    }

    /// Whether it is a token that another provider gave.
    pub(super) fn is_foreign(&self) -> bool {
        self.body.class == CredentialClass::Mcp && self.body.vouched.is_some()
    }

    /// Whether it ended so long ago that it need not be known any more.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        if self.is_foreign() {
            // Forgotten before its end, one that was revoked could be shown again.
            return self.body.expires_at.is_some_and(|end| now.duration_since(end) > KEPT_SHORT);
        }
        let untaken = self.body.granted.as_ref().is_some_and(|granted| granted.family.is_none());
        let kept =
            if untaken || self.body.class == CredentialClass::Mcp { KEPT_SHORT } else { KEPT };
        self.ended_at(now).is_some_and(|at| now.duration_since(at) > kept)
    }

    /// The same token with another body.
    pub(super) fn with(&self, body: TokenBody) -> Result<Self> {
        let used = self.used_ms.load(Ordering::Relaxed);
        let next = entry(self.record.id, body)?;
        next.used_ms.store(used, Ordering::Relaxed);
        next.seen.store(self.seen.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(Self { ended: self.ended.clone(), ..next })
    }
}

pub(super) fn entry(id: TokenId, body: TokenBody) -> Result<Entry> {
    let hash = unhex(&body.hash)
        .ok_or_else(|| Error::internal(format!("the record of token {id} has no usable hash")))?;
    let client = body.vouched.as_ref().and_then(|of| of.client.as_deref()).unwrap_or_default();
    let grant = body.parent.filter(|_| body.class == CredentialClass::Mcp);
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
        grant: grant.map(|grant| format!("{grant} {client}")),
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

pub(super) fn info(entry: &Entry, tables: &Tables) -> TokenInfo {
    let body = &entry.body;
    let used = entry.used_ms.load(Ordering::Relaxed);
    // An access token says who has it as its grant does.
    let granted = body.granted.as_ref().or_else(|| {
        let parent = tables.tokens.get(&body.parent?)?;
        parent.body.granted.as_ref()
    });
    TokenInfo {
        id: entry.record.id,
        name: body.name.clone(),
        class: body.class.word().to_owned(),
        principal: body.principal,
        maker: body.maker,
        scopes: body.scopes.clone(),
        workspaces: body.workspaces.iter().flatten().copied().collect(),
        reach: body.reach,
        client: granted
            .map(|granted| granted.shown.clone())
            .or_else(|| body.vouched.as_ref()?.client.clone()),
        subject: body.vouched.as_ref().map(|of| of.subject.clone()),
        quota: tables.principals.get(&body.principal).map(|p| p.quota).unwrap_or_default(),
        fingerprint: entry.record.hash.fingerprint(),
        created_at: body.created_at,
        expires_at: entry.expires_at(),
        last_used_at: Timestamp::from_millisecond(used).ok().filter(|at| *at >= body.created_at),
        revoked_at: body.revoked_at,
    }
}

pub(super) fn read<T: DeserializeOwned>(kind: &str, id: &str, body: &str) -> Result<T> {
    serde_json::from_str(body)
        .map_err(|err| Error::internal(format!("the record of {kind} {id} is damaged: {err}")))
}

pub(super) fn put(kind: &'static str, id: &impl ToString, body: &impl Serialize) -> Result<Change> {
    let body = serde_json::to_string(body).map_err(Error::internal)?;
    Ok(Change::PutRecord { kind, id: id.to_string(), body })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}
