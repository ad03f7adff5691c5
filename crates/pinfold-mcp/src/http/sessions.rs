//! All sessions over HTTP: whose they are, how many, how long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pinfold_auth::Caller;
use pinfold_types::{Error, ErrorCode, Result, config::StreamsConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    host::{Host, Lease},
    session::{Owner, Session, SessionTransport},
};
use crate::limits::MAX_SESSIONS;

/// How long the end of all sessions may take.
const END: Duration = Duration::from_secs(5);

/// The sessions of a host.
#[derive(Debug)]
pub(crate) struct Sessions<H: Host>(Arc<Inner<H>>);

#[derive(Debug)]
struct Inner<H: Host> {
    bounds: StreamsConfig,
    all: Mutex<Table<H>>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Table<H: Host> {
    sessions: HashMap<Arc<str>, Entry<H>>,
    /// Places that are taken by sessions which begin.
    beginning: Vec<Owner>,
}

#[derive(Debug)]
struct Entry<H: Host> {
    session: Arc<Session>,
    lease: H::Lease,
}

/// A place for one more session.
#[derive(Debug)]
pub(crate) struct Place<H: Host> {
    sessions: Sessions<H>,
    owner: Owner,
}

impl<H: Host> Clone for Sessions<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Host> Sessions<H> {
    pub(crate) fn new(bounds: StreamsConfig) -> Self {
        let all = Table { sessions: HashMap::new(), beginning: Vec::new() };
        Self(Arc::new(Inner { bounds, all: Mutex::new(all), tasks: TaskTracker::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Table<H>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more of this owner's, or a refusal.
    pub(crate) fn place(&self, owner: Owner) -> Result<Place<H>> {
        let most = self.0.bounds.max_per_principal;
        let mut table = self.lock();
        let of = |other: &Owner| other.principal() == owner.principal();
        let own = table.sessions.values().filter(|entry| of(entry.session.owner())).count()
            + table.beginning.iter().filter(|other| of(other)).count();
        if u32::try_from(own).map_or(true, |own| own >= most) {
            return Err(full(format!("{most} sessions of this caller are open already"))
                .hint("end some, or raise streams.max_per_principal"));
        }
        if table.sessions.len() + table.beginning.len() >= MAX_SESSIONS {
            return Err(full(format!("the server has {MAX_SESSIONS} sessions already"))
                .hint("try again later"));
        }
        table.beginning.push(owner.clone());
        Ok(Place { sessions: self.clone(), owner })
    }

    /// A session of this caller's.
    pub(crate) fn find(&self, id: &str, caller: &Caller) -> Option<Arc<Session>> {
        let (session, lease) = {
            let table = self.lock();
            let entry = table.sessions.get(id)?;
            (Arc::clone(&entry.session), entry.lease.clone())
        };
        if *session.owner() != Owner::of(caller) || session.end.is_cancelled() {
            return None;
        }
        if !lease.stands(caller) {
            session.end.cancel();
            return None;
        }
        Some(session)
    }

    /// What a session holds.
    pub(crate) fn lease(&self, id: &str) -> Option<H::Lease> {
        self.lock().sessions.get(id).map(|entry| entry.lease.clone())
    }

    /// Ends all of them, and waits a moment for it.
    pub(crate) async fn end(&self) {
        let all: Vec<_> =
            self.lock().sessions.values().map(|entry| Arc::clone(&entry.session)).collect();
        for session in all {
            session.end.cancel();
        }
        self.0.tasks.close();
        if tokio::time::timeout(END, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.0.tasks.len(), "some sessions of MCP did not end in time");
        }
    }

    /// Waits for a session's end, and gives back what it held.
    async fn live(self, session: Arc<Session>, credential: CancellationToken) {
        let bounds = &self.0.bounds;
        let age = tokio::time::sleep(Duration::from_millis(bounds.max_age_ms));
        tokio::select! {
            () = session.end.cancelled() => {}
            () = credential.cancelled() => {
                tracing::info!("the credential of a session of MCP ended");
            }
            () = age => tracing::debug!("a session of MCP reached streams.max_age_ms"),
            () = session.idle(Duration::from_millis(bounds.idle_ms)) => {
                tracing::debug!("a session of MCP reached streams.idle_ms");
            }
        }
        session.end.cancel();
        let entry = self.lock().sessions.remove(session.id());
        if let Some(entry) = entry {
            entry.lease.end().await;
        }
        session.ended.cancel();
    }
}

fn full(message: String) -> Error {
    let mut error = Error::new(ErrorCode::RateLimited, message);
    error.retry_after_ms = Some(1000);
    error
}

impl<H: Host> Place<H> {
    pub(crate) const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Puts a session there that holds this, and ends when the credential does.
    pub(crate) fn fill(
        self,
        lease: H::Lease,
        credential: CancellationToken,
    ) -> Result<(Arc<Session>, SessionTransport)> {
        let (session, transport) = Session::new(self.owner.clone())?;
        let entry = Entry { session: Arc::clone(&session), lease };
        self.sessions.lock().sessions.insert(Arc::clone(session.id()), entry);
        let living = self.sessions.clone().live(Arc::clone(&session), credential);
        self.sessions.0.tasks.spawn(living);
        Ok((session, transport))
    }
}

impl<H: Host> Drop for Place<H> {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        if let Some(place) = table.beginning.iter().position(|owner| *owner == self.owner) {
            table.beginning.swap_remove(place);
        }
    }
}
