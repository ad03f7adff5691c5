//! What stands before every operation: who calls, how often, what they may, what they hold.

mod drawn;
pub(crate) mod identity;
pub(crate) mod links;
pub(crate) mod oauth;
pub(crate) mod oidc;
pub(crate) mod outside;
pub(crate) mod quota;
pub(crate) mod rates;
pub(crate) mod sessions;
pub(crate) mod tickets;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pinfold_auth::{
    Authenticator, Authorizer, Caller, Facts, Grant, ObjectKind, ObjectRef, Operation,
    PeerCredentials, Principal, PrincipalKind, Surface, TokenKey, unauthenticated, unseen,
};
use pinfold_store::Store;
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result, SessionId, TokenId, WorkspaceId,
    access::{Holder, NewToken, Reach, SessionState},
    config::{Config, LoginConfig},
};
use tokio_util::sync::CancellationToken;

pub use self::rates::RateState;
use self::{
    identity::Identity, links::Links, oauth::Oauth, oidc::Oidc, quota::Quotas, rates::Rates,
    sessions::Sessions, tickets::Tickets,
};
use crate::{Node, Service};

/// What decides about callers, opened from the state of a home.
#[derive(Clone, Debug)]
pub struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    authorizer: Authorizer,
    rates: Rates,
    quotas: Quotas,
    sessions: Sessions,
    tickets: Tickets,
    login: LoginConfig,
    links: Links,
    oauth: Oauth,
    oidc: Option<Oidc>,
}

impl Access {
    /// Reads who there is, with what a configuration says of logins. `key` is the home's key for
    /// hashes of tokens.
    pub async fn open(
        owner_uid: u32,
        key: TokenKey,
        store: Store,
        config: &Config,
    ) -> Result<Self> {
        let now = Timestamp::now();
        let authenticator = Authenticator::new(owner_uid, key);
        let owner = authenticator.owner();
        let stale_after = Duration::from_millis(config.sessions.stale_ms);
        let identity = Identity::open(authenticator, config.quotas.tokens, store.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                identity: identity.await?,
                authorizer: Authorizer::new(owner_uid),
                rates: Rates::open(config.rates.clone(), store.clone(), now).await?,
                quotas: Quotas::default(),
                sessions: Sessions::open(stale_after, store.clone(), now).await?,
                tickets: Tickets::default(),
                links: Links::new(Duration::from_millis(config.login.link_ms)),
                login: config.login.clone(),
                oauth: Oauth::open(config.oauth.clone(), owner, store).await?,
                oidc: Oidc::of(&config.oidc)?,
            }),
        })
    }

    /// Recognises the process at the other end of the unix socket.
    pub fn authenticate_peer(&self, peer: PeerCredentials) -> Result<Principal> {
        self.inner.identity.authenticator().peer(peer)
    }

    /// Recognises a token. Every refusal reads the same.
    pub fn authenticate_bearer(&self, presented: &str, surface: Surface) -> Result<Principal> {
        self.inner.identity.bearer(presented, surface, Timestamp::now())
    }

    /// Takes a ticket, for good, and gives the caller that it was made for. Every refusal reads the
    /// same. `origin` is the page's, as its browser says.
    pub fn redeem_ticket(&self, presented: &str, origin: Option<&str>) -> Result<Caller> {
        let caller = self.inner.tickets.redeem(presented, origin)?;
        // The credential behind it may have ended since.
        if self.ended(caller.principal()).is_cancelled() {
            return Err(unauthenticated("the credential of a ticket has ended"));
        }
        Ok(caller)
    }

    /// A token for the programs of one boot of a workspace (AUTH-08). It ends with the boot.
    pub async fn boot_token(
        &self,
        workspace: WorkspaceId,
        boot: u64,
        owner: Option<PrincipalId>,
        expires_at: Option<Timestamp>,
    ) -> Result<NewToken> {
        self.inner.identity.mint_own(workspace, boot, owner, expires_at, Timestamp::now()).await
    }

    /// Whether anybody besides the owner of the unix socket can call.
    pub fn has_credentials(&self) -> bool {
        self.inner.identity.has_tokens(Timestamp::now())
    }

    /// Cancelled when the principal's credential ends: revoked or expired.
    pub fn ended(&self, principal: &Principal) -> CancellationToken {
        self.inner.identity.ended(principal)
    }

    /// Whether a session is the principal's own and has not ended.
    pub fn check_session(&self, principal: &Principal, session: SessionId) -> Result<()> {
        self.inner.sessions.check(session, principal.id())
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub(crate) fn tickets(&self) -> &Tickets {
        &self.inner.tickets
    }

    pub(crate) fn links(&self) -> &Links {
        &self.inner.links
    }

    pub(crate) fn login(&self) -> &LoginConfig {
        &self.inner.login
    }

    pub(crate) fn oauth(&self) -> &Oauth {
        &self.inner.oauth
    }

    /// The external provider, where the configuration names one.
    pub(crate) fn oidc(&self) -> Option<&Oidc> {
        self.inner.oidc.as_ref()
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.inner.rates
    }

    pub(crate) fn quotas(&self) -> &Quotas {
        &self.inner.quotas
    }

    /// Whether a caller sees everybody's.
    pub(crate) fn sees_all(caller: &Principal) -> bool {
        matches!(caller.kind(), PrincipalKind::Owner { .. })
            || caller.authority().reach == Reach::All
    }

    /// Whether a caller sees what belongs to `principal`.
    pub(crate) fn sees(&self, caller: &Principal, principal: Option<PrincipalId>) -> bool {
        Self::sees_all(caller) || self.inner.identity.line(principal).contains(&caller.id())
    }

    /// The same of what is, or was taken of, a workspace: a credential may be bound to some.
    pub(crate) fn sees_in(
        &self,
        caller: &Principal,
        principal: Option<PrincipalId>,
        workspace: WorkspaceId,
    ) -> bool {
        let bound = caller.authority().workspaces.as_ref();
        bound.is_none_or(|bound| bound.contains(&workspace))
            && (self.sees(caller, principal)
                || caller.kind() == PrincipalKind::Workspace(workspace))
    }

    /// Whom something that this caller makes is made for.
    pub(crate) fn holder(&self, caller: &Caller) -> Holder {
        let principal = match caller.principal().kind() {
            // The user of the unix socket is nobody in particular: so it was before there were
            // tokens, and so what was made then is theirs.
            PrincipalKind::Owner { .. } => None,
            // What a workspace makes of itself belongs to whom it belongs.
            PrincipalKind::Workspace(_) => {
                self.inner.identity.line(Some(caller.principal().id())).get(1).copied()
            }
            _ => Some(caller.principal().id()),
        };
        let owner = self.inner.identity.authenticator().owner();
        let principal = principal.filter(|id| *id != owner);
        Holder { principal, session: caller.session(), ticket: 0 }
    }
}

impl<N: Node> Service<N> {
    /// Lets a caller do `O` on an object, once, or refuses: too often (429), without the right
    /// (403), on what it does not see (404), on what another session is at work on (409).
    pub async fn grant<O: Operation>(
        &self,
        caller: &Caller,
        object: ObjectRef,
    ) -> Result<Grant<O>> {
        let (grant, _) = self.grant_rated(caller, object).await?;
        Ok(grant)
    }

    /// The same, with what is left of the caller's rate.
    pub async fn grant_rated<O: Operation>(
        &self,
        caller: &Caller,
        object: ObjectRef,
    ) -> Result<(Grant<O>, Option<RateState>)> {
        let access = &self.access().inner;
        let principal = caller.principal();
        let now = Timestamp::now();
        let decided = async {
            if access.identity.ended(principal).is_cancelled() {
                return Err(pinfold_auth::unauthenticated("the token has ended"));
            }
            if let Some(session) = caller.session() {
                access.sessions.check(session, principal.id())?;
            }
            let owner = matches!(principal.kind(), PrincipalKind::Owner { .. });
            let rate = access.rates.take(principal.id(), owner, O::INFO.rate, now).await?;
            let facts = self.facts(caller, &object, now).await?;
            let grant = access.authorizer.authorize::<O>(caller, object.clone(), facts)?;
            Ok((grant, rate))
        };
        let decided = decided.await;
        if let Err(refused) = &decided
            && tells(refused, principal)
        {
            self.refused(caller, &O::INFO, &object, refused).await;
        }
        decided
    }

    async fn facts(&self, caller: &Caller, object: &ObjectRef, now: Timestamp) -> Result<Facts> {
        let access = self.access();
        let identity = &access.inner.identity;
        let reference = object.reference();
        match object.kind() {
            ObjectKind::Server | ObjectKind::Image => Ok(Facts::default()),
            ObjectKind::Workspace => {
                let held = same_words(self.node().holding(reference), object)?;
                let held_by = held.holder.session.filter(|session| {
                    caller.session().is_some_and(|own| own != *session)
                        && access
                            .inner
                            .sessions
                            .standing(*session, now)
                            .is_some_and(|(_, state, _)| state == SessionState::Live)
                });
                Ok(Facts {
                    id: Some(held.id.to_string()),
                    principals: identity.line(held.holder.principal),
                    workspace: Some(held.id),
                    held_by,
                })
            }
            ObjectKind::Snapshot => {
                let found = self.node().snapshot_holding(reference).await;
                let found = same_words(found, object)?;
                Ok(Facts {
                    id: Some(found.id.to_string()),
                    principals: identity.line(found.holder.principal),
                    workspace: Some(found.workspace),
                    held_by: None,
                })
            }
            ObjectKind::Token => {
                let id = match reference.parse::<TokenId>() {
                    Ok(id) => Some(id),
                    Err(_) => identity.named(reference, now)?,
                };
                let info = id.and_then(|id| identity.token(id)).ok_or_else(|| unseen(object))?;
                let mut principals = identity.line(Some(info.principal));
                principals.extend(identity.line(Some(info.maker)));
                Ok(Facts { id: Some(info.id.to_string()), principals, ..Facts::default() })
            }
            ObjectKind::Session => {
                let found = reference
                    .parse::<SessionId>()
                    .ok()
                    .and_then(|id| access.inner.sessions.standing(id, now));
                let (principal, ..) = found.ok_or_else(|| unseen(object))?;
                Ok(Facts {
                    id: Some(reference.to_owned()),
                    principals: identity.line(Some(principal)),
                    ..Facts::default()
                })
            }
        }
    }
}

/// Whether a refusal says something about its caller. That calls came too fast, were malformed, or
/// that the owner mistyped a name, does not.
fn tells(refused: &Error, principal: &Principal) -> bool {
    match refused.code {
        ErrorCode::Forbidden | ErrorCode::Unauthenticated | ErrorCode::Conflict => true,
        ErrorCode::NotFound => !matches!(principal.kind(), PrincipalKind::Owner { .. }),
        _ => false,
    }
}

/// What does not exist, in the words for what is not seen.
fn same_words<T>(found: Result<T>, object: &ObjectRef) -> Result<T> {
    found.map_err(|error| if error.code == ErrorCode::NotFound { unseen(object) } else { error })
}
