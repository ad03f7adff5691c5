//! New tokens for programs and people, and for the programs of a workspace.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use jiff::{SignedDuration, Timestamp};
use pinfold_auth::{
    Authority, CredentialClass, Principal, SELF_OPERATIONS, ScopeSet, Token, unauthenticated,
};
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result, TokenId, WorkspaceId,
    access::{CreateToken, NewToken, Quota, Reach, TokenInfo},
};

use super::{
    Identity, MAX_DEPTH, PRINCIPAL, TOKEN,
    record::{Entry, PrincipalBody, TokenBody, entry, info, lasting, put},
};

/// How long a boot may take from its token to the moment when its workspace is seen.
const BEING_MADE: SignedDuration = SignedDuration::from_mins(1);

impl Identity {
    /// Makes a token and, unless it stands for its maker, a principal for it. `workspaces` are those
    /// that it is bound to, looked up; `issuer` vouches for a subject.
    pub(crate) async fn mint(
        &self,
        maker: &Principal,
        request: &CreateToken,
        workspaces: BTreeSet<WorkspaceId>,
        issuer: Option<&str>,
        now: Timestamp,
    ) -> Result<NewToken> {
        request.check()?;
        let mut vouching = None;
        let vouched = match &request.subject {
            Some(subject) => {
                vouching = Some(self.vouching.lock().await);
                Some(self.nobody_yet(subject, issuer, now)?)
            }
            None => None,
        };
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
        let wanted = request.expires_ms.map(|ms| now + lasting(ms));
        // Nobody ever sees the text that somebody of another provider has none of.
        let class = if vouched.is_some() { CredentialClass::Oidc } else { CredentialClass::Api };
        let token = Token::generate(class)?;
        let hash = self.authenticator.hash(&token);
        let principal = if request.same_principal { maker.id() } else { PrincipalId::generate() };
        let body = TokenBody {
            name: request.name.clone(),
            maker: maker.id(),
            parent: maker.token(),
            vouched,
            expires_at: wanted.into_iter().chain(maker.expires_at()).min(),
            ..TokenBody::new(class, &hash, principal, authority, now)
        };
        let made = (!request.same_principal).then(|| PrincipalBody {
            name: request.name.clone(),
            parent: maker.id(),
            quota: if request.quota.is_open() { self.default_quota } else { request.quota },
            created_at: now,
        });
        if made.is_some() && self.line(Some(maker.id())).len() >= MAX_DEPTH {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("tokens made with tokens go {MAX_DEPTH} deep at most"),
            ));
        }
        let entry = entry(token.id(), body)?;
        let info = self.admit(entry, made.map(|made| (principal, made)), now).await?;
        drop(vouching);
        let text = (class != CredentialClass::Oidc).then(|| token.reveal().to_string());
        Ok(NewToken { token: text, info })
    }

    /// Records a new token, with the principal that was made for it, and lets it in unless what it
    /// was made with has ended meanwhile.
    pub(super) async fn admit(
        &self,
        entry: Entry,
        made: Option<(PrincipalId, PrincipalBody)>,
        now: Timestamp,
    ) -> Result<TokenInfo> {
        let id = entry.record.id;
        let mut changes = vec![put(TOKEN, &id, &entry.body)?];
        if let Some((principal, made)) = &made {
            changes.push(put(PRINCIPAL, principal, made)?);
        }
        changes.extend(self.forget_old(now)?);
        self.store.apply(changes).await?;
        let (info, orphan) = {
            let mut tables = self.write();
            if let Some((principal, made)) = made {
                tables.principals.insert(principal, made);
            }
            // Whoever revoked the maker's token meanwhile meant this one too.
            let orphan = entry
                .body
                .parent
                .is_some_and(|id| tables.tokens.get(&id).is_none_or(|parent| !parent.stands(now)));
            let info = info(&entry, &tables);
            tables.tokens.insert(id, Arc::new(entry));
            (info, orphan)
        };
        if orphan {
            self.revoke(id, now).await?;
            return Err(unauthenticated("the maker's token was revoked meanwhile"));
        }
        Ok(info)
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
        let own = pinfold_auth::OPERATIONS.iter().filter(|op| SELF_OPERATIONS.contains(&op.name));
        let authority = Authority {
            scopes: ScopeSet::recorded(own.map(|op| op.scope)),
            reach: Reach::Own,
            workspaces: Some([workspace].into()),
            operations: Some(SELF_OPERATIONS),
        };
        let (class, hash) = (CredentialClass::Workspace, self.authenticator.hash(&token));
        let body = TokenBody {
            name: workspace.to_string(),
            maker,
            own: Some((workspace, boot)),
            expires_at,
            ..TokenBody::new(class, &hash, principal, authority, now)
        };
        let made = PrincipalBody {
            name: workspace.to_string(),
            parent: maker,
            quota: Quota::default(),
            created_at: now,
        };
        let entry = entry(token.id(), body)?;
        let info = self.admit(entry, Some((principal, made)), now).await?;
        Ok(NewToken { token: Some(token.reveal().to_string()), info })
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
