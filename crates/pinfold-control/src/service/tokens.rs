//! Tokens, and who the caller is.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pinfold_auth::{Caller, Grant, ObjectRef, ops, unseen};
use pinfold_types::{
    Error, ErrorCode, Result, TokenId, WorkspaceId,
    access::{CreateToken, NewTicket, NewToken, TokenInfo, WhoAmI},
    api::{Page, PageQuery},
};

use crate::{
    Node, Service,
    access::{Access, oidc::Oidc, tickets::LIFE},
    page::page,
};

impl<N: Node> Service<N> {
    /// Whom the caller is taken for, and what it holds.
    pub async fn who_am_i(&self, grant: Grant<ops::WhoAmI>) -> Result<WhoAmI> {
        let call = self.enter(grant)?;
        let (access, principal) = (self.access(), call.caller().principal());
        let holdings = self.node().holdings();
        let mut usage = access.quotas().used(access.identity(), principal.id(), &holdings).named();
        let (streams, execs) = access.quotas().streams(principal.id());
        usage.extend([("streams".to_owned(), streams), ("execs".to_owned(), execs)]);
        let answer = WhoAmI {
            principal: principal.id(),
            name: principal.name().to_owned(),
            kind: principal.kind().as_str().to_owned(),
            scopes: principal.authority().scopes.names(),
            reach: principal.authority().reach,
            token: principal.token(),
            session: call.caller().session(),
            quota: access.identity().quota(principal.id()),
            usage,
        };
        call.end(Ok(answer)).await
    }

    /// Makes a ticket for the page of this origin, or for a program when there is none. Its text
    /// is in the answer, and nowhere else ever again.
    pub async fn create_ticket(
        &self,
        grant: Grant<ops::TicketCreate>,
        origin: Option<&str>,
    ) -> Result<NewTicket> {
        let call = self.enter(grant)?;
        let ticket = self.access().tickets().issue(call.caller(), origin);
        let life = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
        call.end(ticket.map(|ticket| NewTicket { ticket, expires_in_ms: life })).await
    }

    /// Makes a token. Its text is in the answer, and nowhere else ever again.
    pub async fn create_token(
        &self,
        grant: Grant<ops::TokenCreate>,
        request: CreateToken,
    ) -> Result<NewToken> {
        request.check()?;
        let call = self.enter(grant)?;
        let made = async {
            let mut bound = BTreeSet::new();
            for reference in &request.workspaces {
                bound.insert(self.seen_workspace(call.caller(), reference)?);
            }
            let maker = call.caller().principal();
            // Else somebody could have others work in what is their own.
            if request.subject.is_some() && !Access::sees_all(maker) {
                return Err(Error::new(
                    ErrorCode::Forbidden,
                    "only who sees everybody's may say who somebody of the provider is",
                ));
            }
            let access = self.access();
            let issuer = access.oidc().map(Oidc::issuer);
            access.identity().mint(maker, &request, bound, issuer, Timestamp::now()).await
        };
        let made = made.await;
        call.end_with(made, |made| vec![made.info.id.to_string()]).await
    }

    /// Makes a token for the programs of a workspace, for its present boot (AUTH-08).
    pub async fn workspace_token(&self, grant: Grant<ops::WorkspaceToken>) -> Result<NewToken> {
        let call = self.enter(grant)?;
        let made = async {
            let info = self.node().get(call.reference())?;
            if !info.state.is_live() {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!("workspace {:?} is {}", info.name.as_str(), info.state),
                )
                .hint("its token lives as long as a boot: pinfold start"));
            }
            let now = Timestamp::now();
            let expires_at =
                info.expires_at.into_iter().chain(call.caller().principal().expires_at()).min();
            let identity = self.access().identity();
            identity.mint_own(info.id, info.boot, info.owner, expires_at, now).await
        };
        let made = made.await;
        call.end_with(made, |made| vec![made.info.id.to_string()]).await
    }

    /// Ends what has come to its end by itself: expired tokens' streams, and tokens of workspaces
    /// whose boot is over. To be called a few times a second.
    pub async fn sweep(&self) {
        let now = Timestamp::now();
        let identity = self.access().identity();
        identity.sweep(now);
        let stands = |id: WorkspaceId, boot: u64| {
            let info = self.node().get(&id.to_string()).ok()?;
            Some(info.boot == boot && info.state.is_live())
        };
        if let Err(err) = identity.end_own(stands, now).await {
            tracing::warn!(%err, "tokens of workspaces that have ended could not be revoked");
        }
    }

    /// One page of the tokens that the caller sees, oldest first.
    pub async fn list_tokens(
        &self,
        grant: Grant<ops::TokenList>,
        query: &PageQuery,
    ) -> Result<Page<TokenInfo>> {
        let call = self.enter(grant)?;
        let (access, caller) = (self.access(), call.caller().principal());
        let all = access.identity().tokens(|principal| access.sees(caller, Some(principal)));
        call.end(page(all, query, |info| info.id)).await
    }

    /// One token.
    pub async fn token(&self, grant: Grant<ops::TokenRead>) -> Result<TokenInfo> {
        let call = self.enter(grant)?;
        let found = call
            .reference()
            .parse::<TokenId>()
            .ok()
            .and_then(|id| self.access().identity().token(id))
            .ok_or_else(|| unseen(call.grant.object()));
        call.end(found).await
    }

    /// Revokes a token, and all that were made with it.
    pub async fn revoke_token(&self, grant: Grant<ops::TokenRevoke>) -> Result<TokenInfo> {
        let call = self.enter(grant)?;
        let revoked = async {
            let id: TokenId = call.reference().parse()?;
            self.access().identity().revoke(id, Timestamp::now()).await?;
            self.access().identity().token(id).ok_or_else(|| unseen(call.grant.object()))
        };
        let revoked = revoked.await;
        call.end(revoked).await
    }

    /// The id of a workspace that the caller sees.
    pub(super) fn seen_workspace(&self, caller: &Caller, reference: &str) -> Result<WorkspaceId> {
        let object = ObjectRef::workspace(reference);
        let held = self.node().holding(reference).map_err(|error| match error.code {
            ErrorCode::NotFound => unseen(&object),
            _ => error,
        })?;
        let seen = self.access().sees_in(caller.principal(), held.holder.principal, held.id);
        if seen { Ok(held.id) } else { Err(unseen(&object)) }
    }
}
