//! The operations. Each function is named like its operation and takes its grant, so the object
//! it acts on is the one that was authorized.

mod audit;
mod events;
mod execs;
mod files;
mod images;
mod login;
pub(crate) mod mcp;
pub(crate) mod oauth;
pub(crate) mod oidc;
mod server;
mod sessions;
mod snapshots;
mod tokens;
mod workspaces;

pub use self::events::EventStream;
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Instant,
};

use jiff::Timestamp;
use pinfold_auth::{
    Caller, Grant, ObjectKind, ObjectRef, Operation, OperationInfo, Surface, operation::RateClass,
};
use pinfold_store::{Store, audit::AuditLog};
use pinfold_types::{
    Error, RequestId, Result,
    access::Holder,
    limits::{LimitKind, ResourceLimits},
};

use crate::{
    Access, InFlight, Node,
    access::{
        quota::{Reservation, StreamHeld},
        sessions::SessionFlight,
    },
    events::{Events, Outcome, Record},
    flight::{Flight, Tracked},
};

/// What the server knows about itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Version of the program.
    pub version: String,
    /// Home directory.
    pub home: PathBuf,
    /// When it started.
    pub started: Instant,
}

/// The operations on one node. Cheap to clone.
#[derive(Debug)]
pub struct Service<N: Node> {
    inner: Arc<Inner<N>>,
}

#[derive(Debug)]
struct Inner<N> {
    node: N,
    access: Access,
    events: Events,
    flights: InFlight,
    facts: ServerFacts,
    /// URLs at which browsers find the server.
    pages: OnceLock<Vec<String>>,
}

impl<N: Node> Clone for Service<N> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// A call of one operation, from its grant to its end.
struct Call<O: Operation> {
    grant: Grant<O>,
    held: Held,
    /// Of operations that change something.
    record: Option<Record>,
}

/// What a call holds until it, or the stream that came of it, ends.
#[derive(Debug)]
pub(crate) struct Held {
    _flight: Flight,
    /// Of the operation; it ends with this.
    span: tracing::Span,
    /// Whether the span has an outcome: a caller may go away before there is one.
    told: bool,
    _session: Option<SessionFlight>,
    _stream: Option<StreamHeld>,
    /// Of a stream that was told to begin, and what it made.
    record: Option<(Record, Vec<String>)>,
}

impl Held {
    /// Says in the operation's span how it ended, or that its stream began.
    fn tell<T>(&mut self, result: &Result<T>) {
        self.told = true;
        tell(&self.span, result);
    }
}

/// Says in a span how its operation ended.
fn tell<T>(span: &tracing::Span, result: &Result<T>) {
    let outcome = match result {
        Ok(_) => "ok",
        Err(error) => {
            span.record("error.code", error.code.as_str());
            if error.code.http_status() < 500 { "refused" } else { "fault" }
        }
    };
    span.record("outcome", outcome);
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.told {
            self.span.record("outcome", "abandoned");
        }
        if let Some((record, made)) = self.record.take() {
            record.close_stream(made);
        }
    }
}

impl<N: Node> Service<N> {
    /// The operations on `node`, decided by `access`, recording into `store`.
    pub fn new(node: N, access: Access, store: Store, audit: AuditLog, facts: ServerFacts) -> Self {
        Self {
            inner: Arc::new(Inner {
                node,
                access,
                events: Events::new(store, audit),
                flights: InFlight::default(),
                facts,
                pages: OnceLock::new(),
            }),
        }
    }

    /// Calls and streams in flight.
    pub fn in_flight(&self) -> &InFlight {
        &self.inner.flights
    }

    /// Who decides about callers.
    pub fn access(&self) -> &Access {
        &self.inner.access
    }

    pub(crate) fn node(&self) -> &N {
        &self.inner.node
    }

    /// Begins a call: it counts from here on, and what changes something is recorded.
    fn enter<O: Operation>(&self, grant: Grant<O>) -> Result<Call<O>> {
        let access = self.access();
        let principal = grant.principal().id();
        let session = grant.caller().session();
        let session = session.map(|id| access.sessions().begin(id, principal, Timestamp::now()));
        let stream = O::INFO.reply.is_stream().then(|| {
            let line = access.identity().line(Some(principal));
            let exec = matches!(O::INFO.rate, RateClass::Exec | RateClass::Create);
            access.quotas().hold_stream(access.identity(), line, exec)
        });
        let span = tracing::debug_span!(
            target: pinfold_types::spans::TARGET,
            "operation",
            operation = O::INFO.name,
            surface = grant.caller().surface().as_str(),
            principal.id = %principal,
            principal.kind = grant.principal().kind().as_str(),
            request.id = %grant.caller().request(),
            outcome = tracing::field::Empty,
            error.code = tracing::field::Empty,
        );
        let begun = self.begin(grant, span.clone(), session, stream);
        if begun.is_err() {
            tell(&span, &begun);
        }
        begun
    }

    fn begin<O: Operation>(
        &self,
        grant: Grant<O>,
        span: tracing::Span,
        session: Option<Result<SessionFlight>>,
        stream: Option<Result<StreamHeld>>,
    ) -> Result<Call<O>> {
        let record = || {
            let object = grant.object();
            // The grant names it by id, where it exists.
            let object = match object.kind() {
                ObjectKind::Server => String::new(),
                _ => object.reference().to_owned(),
            };
            self.inner.events.begin(&grant, object)
        };
        let (session, stream) = (session.transpose()?, stream.transpose()?);
        let record = if O::INFO.mutates() { Some(record()?) } else { None };
        let held = Held {
            span,
            told: false,
            _session: session,
            _stream: stream,
            _flight: self.inner.flights.begin(),
            record: None,
        };
        Ok(Call { grant, held, record })
    }

    /// Writes down that a caller was refused.
    pub(crate) async fn refused(
        &self,
        caller: &Caller,
        operation: &OperationInfo,
        object: &ObjectRef,
        error: &Error,
    ) {
        self.inner.events.refused(caller, operation, object, error).await;
    }

    /// Writes down that somebody was nobody.
    pub fn unknown(
        &self,
        surface: Surface,
        peer: Option<std::net::IpAddr>,
        request: Option<RequestId>,
        error: &Error,
    ) {
        self.inner.events.stranger("auth.failed", surface, peer, request, error);
    }

    /// Writes down that a request was not for this server, or came from a page that may not send
    /// it.
    pub fn turned_away(
        &self,
        surface: Surface,
        peer: Option<std::net::IpAddr>,
        request: Option<RequestId>,
        error: &Error,
    ) {
        self.inner.events.stranger("site.refused", surface, peer, request, error);
    }

    /// Whether changes can be made: the audit log takes records.
    pub fn ready(&self) -> Result<()> {
        self.inner.events.audit().healthy()
    }

    /// Reserves `count` workspaces of these limits for a caller, and says whose they will be.
    fn reserve(
        &self,
        caller: &Caller,
        limits: &ResourceLimits,
        count: u64,
    ) -> Result<(Reservation, Holder)> {
        let access = self.access();
        let holder = access.holder(caller);
        let line = access.identity().line(holder.principal);
        let holdings = || self.node().holdings();
        let quotas = access.quotas();
        let reserved = quotas.reserve(access.identity(), line, limits, count, holdings)?;
        let holder = Holder { ticket: reserved.ticket(), ..holder };
        Ok((reserved, holder))
    }

    /// Holds what was reserved until the node has done its work, also when the caller goes away
    /// in the middle: the node finishes what it began, and what it makes must fit then too.
    async fn holding<T, F>(&self, reserved: Reservation, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let work = work(self.clone());
        if reserved.is_open() {
            return work.await;
        }
        let work = tokio::spawn(async move {
            let done = work.await;
            drop(reserved);
            done
        });
        work.await.map_err(Error::internal)?
    }
}

/// The limits of a fork: those asked for, over those of its source.
fn narrowed(source: &ResourceLimits, asked: &ResourceLimits) -> ResourceLimits {
    let mut limits = source.clone();
    for kind in LimitKind::ALL {
        limits.set(*kind, asked.get(*kind).or(source.get(*kind)));
    }
    limits
}

impl<O: Operation> Call<O> {
    fn reference(&self) -> &str {
        self.grant.object().reference()
    }

    const fn caller(&self) -> &Caller {
        self.grant.caller()
    }

    /// The end of a call that made nothing with an id. Of one that only looked nothing is
    /// recorded.
    async fn end<T>(self, result: Result<T>) -> Result<T> {
        self.end_with(result, |_| Vec::new()).await
    }

    /// Records the end with the ids of what was made, and waits until that is on the disk.
    async fn end_with<T>(
        mut self,
        result: Result<T>,
        made: impl FnOnce(&T) -> Vec<String>,
    ) -> Result<T> {
        let made = result.as_ref().map(made).unwrap_or_default();
        let outcome = Outcome::of(&result);
        let recorded = match self.record.take() {
            Some(record) => record.end(outcome, made).await,
            None => Ok(()),
        };
        let result = recorded.and(result);
        self.held.tell(&result);
        result
    }

    /// The same for a stream, which stays in flight as long as it is held. That it began is on the
    /// disk when this returns; that it ended is recorded when it does.
    async fn stream<T>(self, result: Result<T>) -> Result<Tracked<T>> {
        self.stream_with(result, |_| Vec::new()).await
    }

    /// The same, with the ids of what was made.
    async fn stream_with<T>(
        mut self,
        result: Result<T>,
        made: impl FnOnce(&T) -> Vec<String>,
    ) -> Result<Tracked<T>> {
        self.held.tell(&result);
        let outcome = Outcome::of(&result);
        let Ok(stream) = result else {
            if let Some(record) = self.record {
                record.end(outcome, Vec::new()).await?;
            }
            return result.map(|stream| Tracked::new(stream, self.held));
        };
        let made = made(&stream);
        if let Some(mut record) = self.record {
            record.begun().await?;
            self.held.record = Some((record, made));
        }
        Ok(Tracked::new(stream, self.held))
    }
}
