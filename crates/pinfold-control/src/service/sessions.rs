//! Sessions, and who owns what.

use jiff::Timestamp;
use pinfold_auth::{Caller, Grant, ops, unseen};
use pinfold_types::{
    Error, ErrorCode, Result, SessionId, WorkspaceId,
    access::{AdoptWorkspaces, Adopted, CreateSession, Holder, Holding, SessionInfo, SessionState},
    api::{Page, PageQuery},
};

use crate::{Node, Service, page::page};

impl<N: Node> Service<N> {
    /// Begins a session of the caller's.
    pub async fn create_session(
        &self,
        grant: Grant<ops::SessionCreate>,
        request: CreateSession,
    ) -> Result<SessionInfo> {
        let call = self.enter(grant)?;
        let principal = call.caller().principal().id();
        let sessions = self.access().sessions();
        let made = sessions.create(principal, request, Timestamp::now()).await;
        call.end_with(made, |info| vec![info.id.to_string()]).await
    }

    /// One page of the sessions that the caller sees, oldest first. Looking keeps none alive.
    pub async fn list_sessions(
        &self,
        grant: Grant<ops::SessionList>,
        query: &PageQuery,
    ) -> Result<Page<SessionInfo>> {
        let call = self.enter(grant)?;
        let (access, caller) = (self.access(), call.caller().principal());
        let holdings = self.node().holdings();
        let now = Timestamp::now();
        let mut all = access.sessions().list(|id| access.sees(caller, Some(id)), now);
        for info in &mut all {
            let owned = holdings.iter().filter(|held| held.holder.session == Some(info.id));
            info.workspaces = owned.map(|held| held.id).collect();
        }
        call.end(page(all, query, |info| info.id)).await
    }

    /// Ends a session.
    pub async fn end_session(&self, grant: Grant<ops::SessionEnd>) -> Result<()> {
        let call = self.enter(grant)?;
        let ended = match call.reference().parse::<SessionId>() {
            Ok(id) => self.access().sessions().end(id, Timestamp::now()).await,
            Err(_) => Err(unseen(call.grant.object())),
        };
        call.end(ended).await
    }

    /// Makes the caller's session the owner of one workspace, or of every orphan that it sees.
    pub async fn adopt(
        &self,
        grant: Grant<ops::SessionAdopt>,
        request: AdoptWorkspaces,
    ) -> Result<Adopted> {
        let call = self.enter(grant)?;
        let adopted = self.adopt_for(call.caller(), &request).await;
        call.end_with(adopted, |adopted| {
            adopted.workspaces.iter().map(ToString::to_string).collect()
        })
        .await
    }

    async fn adopt_for(&self, caller: &Caller, request: &AdoptWorkspaces) -> Result<Adopted> {
        let now = Timestamp::now();
        if let Some(reference) = &request.workspace {
            let id = self.seen_workspace(caller, reference)?;
            let held = self.node().holding(&id.to_string())?;
            let own = held.holder.session == caller.session();
            if !own && !self.is_orphan(&held.holder, now) {
                let session = held.holder.session.map(|id| id.to_string()).unwrap_or_default();
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!(
                        "workspace {reference} belongs to session {session}, which has not ended"
                    ),
                )
                .hint(format!("take over what it owns: pinfold session takeover {session}")));
            }
            let workspaces = self.take(caller, vec![held]).await?;
            return Ok(Adopted { workspaces });
        }
        let orphans = self.node().holdings().into_iter().filter(|held| {
            held.holder.session.is_some()
                && held.holder.session != caller.session()
                && self.is_orphan(&held.holder, now)
                && self.access().sees_in(caller.principal(), held.holder.principal, held.id)
        });
        let orphans = orphans.collect();
        // One that somebody else adopts at the same instant is theirs.
        Ok(Adopted { workspaces: self.take_what_can_be(caller, orphans).await? })
    }

    /// Makes the caller's session the owner of all that another one owns.
    pub async fn takeover(&self, grant: Grant<ops::SessionTakeover>) -> Result<Adopted> {
        let call = self.enter(grant)?;
        let taken = self.takeover_for(call.caller(), call.reference()).await;
        call.end_with(taken, |taken| taken.workspaces.iter().map(ToString::to_string).collect())
            .await
    }

    async fn takeover_for(&self, caller: &Caller, reference: &str) -> Result<Adopted> {
        let id: SessionId = reference.parse()?;
        let standing = self.access().sessions().standing(id, Timestamp::now());
        let (principal, state, in_flight) =
            standing.ok_or_else(|| Error::not_found("session", reference))?;
        let own = principal == caller.principal().id();
        let free = match state {
            SessionState::Ended | SessionState::Stale => true,
            // One's own needs no waiting, but nothing is taken away from work under way.
            SessionState::Live => own && in_flight == 0,
        };
        if !free {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("session {id} is at work, with {in_flight} calls and streams in flight"),
            )
            .hint("wait until it is stale (sessions.stale_ms after its last call), or end it"));
        }
        let held = self.node().holdings().into_iter();
        let held = held.filter(|held| held.holder.session == Some(id)).collect();
        Ok(Adopted { workspaces: self.take_what_can_be(caller, held).await? })
    }

    /// Whether nobody is at work with it: its session has ended or is not known, or it belongs to
    /// a default session, which is nobody in particular.
    fn is_orphan(&self, holder: &Holder, now: Timestamp) -> bool {
        let Some(session) = holder.session else { return true };
        let standing = self.access().sessions().standing(session, now);
        standing.is_none_or(|(_, state, _)| state == SessionState::Ended)
    }

    async fn take_what_can_be(
        &self,
        caller: &Caller,
        held: Vec<Holding>,
    ) -> Result<Vec<WorkspaceId>> {
        let mut taken = Vec::new();
        for held in held {
            match self.take(caller, vec![held]).await {
                Ok(ids) => taken.extend(ids),
                Err(error) if matches!(error.code, ErrorCode::Conflict | ErrorCode::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Changes the owner, after the quota of the new one has room for it.
    async fn take(&self, caller: &Caller, held: Vec<Holding>) -> Result<Vec<WorkspaceId>> {
        let mut taken = Vec::new();
        for held in held {
            let to = self.access().holder(caller);
            let changes_hands = to.principal != held.holder.principal;
            let (reserved, to) = if changes_hands {
                self.reserve(caller, &held.limits, 1)?
            } else {
                (crate::access::quota::Reservation::open(), to)
            };
            let (id, from) = (held.id.to_string(), held.holder);
            let hand_over = |this: Self| async move { this.node().hand_over(&id, from, to).await };
            self.holding(reserved, hand_over).await?;
            taken.push(held.id);
        }
        Ok(taken)
    }
}
