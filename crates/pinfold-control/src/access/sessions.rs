//! Sessions: leases of a principal's activity, made here and nowhere else (AUTH-05).
//!
//! A session is alive while it has calls or streams in flight, and for `sessions.stale_ms` after the
//! last one. What it owns is defended that long. After a restart every session that had not ended
//! gets that time anew, so nothing is stolen while clients find their way back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use pinfold_store::{Change, Store};
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result, SessionId,
    access::{CreateSession, SessionInfo, SessionState},
};
use serde::{Deserialize, Serialize};

const KIND: &str = "session";
/// Most sessions that are known; the ended and then the stalest make way.
const MAX_SESSIONS: usize = 10_000;
/// Activity is recorded this often at most.
const RECORD_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    principal: PrincipalId,
    client: String,
    created_at: Timestamp,
    last_active_at: Timestamp,
    ended_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Session {
    body: Body,
    in_flight: u64,
    recorded_at: Timestamp,
}

/// All sessions.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    all: Arc<Mutex<HashMap<SessionId, Session>>>,
    stale_after: Duration,
    store: Store,
}

/// A call or stream of a session.
#[derive(Debug)]
pub(crate) struct SessionFlight {
    sessions: Sessions,
    id: SessionId,
}

impl Drop for SessionFlight {
    fn drop(&mut self) {
        self.sessions.touch(self.id, Timestamp::now(), |session| {
            session.in_flight = session.in_flight.saturating_sub(1);
        });
    }
}

impl Sessions {
    pub(crate) async fn open(stale_after: Duration, store: Store, now: Timestamp) -> Result<Self> {
        let mut all = HashMap::new();
        for (id, body) in store.records(KIND).await? {
            let mut body: Body = serde_json::from_str(&body).map_err(|err| {
                Error::internal(format!("the record of session {id} is damaged: {err}"))
            })?;
            if body.ended_at.is_none() {
                body.last_active_at = now;
            }
            all.insert(id.parse()?, Session { body, in_flight: 0, recorded_at: now });
        }
        Ok(Self { all: Arc::new(Mutex::new(all)), stale_after, store })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, session: &Session, now: Timestamp) -> SessionState {
        if session.body.ended_at.is_some() {
            return SessionState::Ended;
        }
        let silent = now.duration_since(session.body.last_active_at);
        let stale = silent.unsigned_abs() > self.stale_after && silent.is_positive();
        if session.in_flight == 0 && stale { SessionState::Stale } else { SessionState::Live }
    }

    /// Begins one.
    pub(crate) async fn create(
        &self,
        principal: PrincipalId,
        request: CreateSession,
        now: Timestamp,
    ) -> Result<SessionInfo> {
        request.check()?;
        let id = SessionId::generate();
        let body = Body {
            principal,
            client: request.client,
            created_at: now,
            last_active_at: now,
            ended_at: None,
        };
        let mut changes = self.make_room(now)?;
        changes.push(put(id, &body)?);
        self.store.apply(changes).await?;
        let session = Session { body, in_flight: 0, recorded_at: now };
        let info = self.info(id, &session, now);
        self.lock().insert(id, session);
        Ok(info)
    }

    fn make_room(&self, now: Timestamp) -> Result<Vec<Change>> {
        let mut all = self.lock();
        if all.len() < MAX_SESSIONS {
            return Ok(Vec::new());
        }
        let mut idle: Vec<(bool, Timestamp, SessionId)> = all
            .iter()
            .filter(|(_, session)| self.state(session, now) != SessionState::Live)
            .map(|(id, s)| (s.body.ended_at.is_none(), s.body.last_active_at, *id))
            .collect();
        idle.sort_unstable();
        idle.truncate(MAX_SESSIONS / 10);
        if idle.is_empty() {
            return Err(Error::new(
                ErrorCode::QuotaExceeded,
                format!("there are {MAX_SESSIONS} live sessions already"),
            ));
        }
        let gone = idle.into_iter().map(|(_, _, id)| {
            all.remove(&id);
            Change::DeleteRecord { kind: KIND, id: id.to_string() }
        });
        Ok(gone.collect())
    }

    /// Counts a call or stream of the principal's own session. Any other id, known or not, is
    /// refused in the same words.
    pub(crate) fn begin(
        &self,
        id: SessionId,
        principal: PrincipalId,
        now: Timestamp,
    ) -> Result<SessionFlight> {
        self.check(id, principal)?;
        self.touch(id, now, |session| session.in_flight += 1);
        Ok(SessionFlight { sessions: self.clone(), id })
    }

    /// Whether a session is the principal's own and has not ended.
    pub(crate) fn check(&self, id: SessionId, principal: PrincipalId) -> Result<()> {
        let all = self.lock();
        let own = all.get(&id).is_some_and(|session| {
            session.body.principal == principal && session.body.ended_at.is_none()
        });
        if own { Ok(()) } else { Err(none(id)) }
    }

    fn touch(&self, id: SessionId, now: Timestamp, change: impl FnOnce(&mut Session)) {
        let mut all = self.lock();
        let Some(session) = all.get_mut(&id) else { return };
        change(session);
        session.body.last_active_at = session.body.last_active_at.max(now);
        let due = now.duration_since(session.recorded_at).unsigned_abs() >= RECORD_EVERY;
        if due {
            session.recorded_at = now;
            if let Ok(change) = put(id, &session.body) {
                self.store.apply_relaxed(vec![change]);
            }
        }
    }

    /// Ends one. Its streams are the caller's business.
    pub(crate) async fn end(&self, id: SessionId, now: Timestamp) -> Result<()> {
        let change = {
            let mut all = self.lock();
            let Some(session) = all.get_mut(&id) else { return Err(none(id)) };
            session.body.ended_at.get_or_insert(now);
            put(id, &session.body)?
        };
        self.store.apply(vec![change]).await
    }

    /// Whose a session is and how it stands; `None` for one that is not known.
    pub(crate) fn standing(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Option<(PrincipalId, SessionState, u64)> {
        let all = self.lock();
        let session = all.get(&id)?;
        Some((session.body.principal, self.state(session, now), session.in_flight))
    }

    /// Every session that `sees` lets through, oldest first, without what they own.
    pub(crate) fn list(
        &self,
        sees: impl Fn(PrincipalId) -> bool,
        now: Timestamp,
    ) -> Vec<SessionInfo> {
        let all = self.lock();
        let theirs = all.iter().filter(|(_, session)| sees(session.body.principal));
        let mut list: Vec<SessionInfo> =
            theirs.map(|(id, session)| self.info(*id, session, now)).collect();
        list.sort_unstable_by_key(|info| info.id);
        list
    }

    fn info(&self, id: SessionId, session: &Session, now: Timestamp) -> SessionInfo {
        SessionInfo {
            id,
            principal: session.body.principal,
            client: session.body.client.clone(),
            state: self.state(session, now),
            created_at: session.body.created_at,
            last_active_at: session.body.last_active_at,
            in_flight: session.in_flight,
            workspaces: Vec::new(),
        }
    }
}

fn none(id: SessionId) -> Error {
    Error::not_found("session", id.to_string())
        .hint("begin one: POST /api/v1/sessions; pinfold session ls lists yours")
}

fn put(id: SessionId, body: &Body) -> Result<Change> {
    let body = serde_json::to_string(body).map_err(Error::internal)?;
    Ok(Change::PutRecord { kind: KIND, id: id.to_string(), body })
}
