//! What happened: in the audit log before the answer goes out, with the state for whoever asks what
//! befell a workspace, and told to whoever listens.
//!
//! An event never holds a value that a caller sent as content: no environment, no arguments, no
//! file bytes, no URL.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use jiff::Timestamp;
use pinfold_auth::{Caller, Grant, ObjectRef, Operation, OperationInfo, Surface};
use pinfold_store::{
    Event, Store,
    audit::{AuditEvent, AuditLog, Pending, Phase},
};
use pinfold_types::{Error, ErrorCode, PrincipalId, RequestId, Result};

/// Failed authentications that are recorded one by one in a second; the rest is counted.
const STRANGERS_PER_SECOND: u64 = 20;

/// Who calls without being anybody yet, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    pub(crate) address: Option<std::net::IpAddr>,
    pub(crate) request: RequestId,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was made.
    Ok,
    /// It was not.
    Failed(ErrorCode),
    /// The caller went away before it was answered. The node finishes or undoes it.
    Abandoned,
}

impl Outcome {
    pub(crate) fn of<T>(result: &Result<T>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(err) => Self::Failed(err.code),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(code) => code.as_str(),
            Self::Abandoned => "abandoned",
        }
    }
}

/// The recorder of one service.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    store: Store,
    audit: AuditLog,
    strangers: Arc<Strangers>,
}

/// Failed authentications of the present second.
#[derive(Debug, Default)]
struct Strangers {
    second: AtomicI64,
    recorded: AtomicU64,
    left_out: AtomicU64,
}

impl Events {
    pub(crate) fn new(store: Store, audit: AuditLog) -> Self {
        Self { store, audit, strangers: Arc::default() }
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) const fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Records that somebody was not let do something. It is on the disk before the refusal is
    /// told; that it could not be written makes the refusal no weaker.
    pub(crate) async fn refused(
        &self,
        caller: &Caller,
        operation: &OperationInfo,
        object: &ObjectRef,
        error: &Error,
    ) {
        let mut event = audited(Phase::Denied, operation.name, caller);
        event.object = object.to_string();
        event.decision = "refuse".into();
        event.rule = error.internal.clone().unwrap_or_else(|| error.message.clone());
        event.outcome = Some(error.code.as_str().to_owned());
        if let Err(err) = self.audit.append(event).durable().await {
            tracing::error!(%err, "a refusal could not be recorded");
        }
    }

    /// Records that somebody was nobody, or came to the wrong door. What was presented is not in
    /// it.
    pub(crate) fn stranger(
        &self,
        what: &'static str,
        surface: Surface,
        peer: Option<std::net::IpAddr>,
        request: Option<RequestId>,
        error: &Error,
    ) {
        let now = Timestamp::now();
        let strangers = &self.strangers;
        if strangers.second.swap(now.as_second(), Ordering::Relaxed) != now.as_second() {
            strangers.recorded.store(0, Ordering::Relaxed);
        }
        if strangers.recorded.fetch_add(1, Ordering::Relaxed) >= STRANGERS_PER_SECOND {
            strangers.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut event = AuditEvent::new(now, Phase::Security, what);
        event.surface = surface.as_str().into();
        event.peer = peer.map(|address| address.to_string());
        event.request = request.map(|id| id.to_string()).unwrap_or_default();
        event.decision = "refuse".into();
        event.rule = error.internal.clone().unwrap_or_default();
        event.outcome = Some(error.code.as_str().to_owned());
        let left_out = strangers.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            event = event.with("more_before_this", left_out.to_string());
        }
        // Whoever is nobody is not kept waiting for a disk.
        drop(self.audit.append(event));
    }

    /// Records what is nobody's operation and still worth knowing; `fill` adds to it. It is on the
    /// disk when this returns.
    pub(crate) async fn security(
        &self,
        what: &'static str,
        visitor: &Visitor,
        fill: impl FnOnce(&mut AuditEvent),
    ) -> Result<()> {
        let mut event = AuditEvent::new(Timestamp::now(), Phase::Security, what);
        event.surface = Surface::Http.as_str().into();
        event.peer = visitor.address.map(|address| address.to_string());
        event.request = visitor.request.to_string();
        event.decision = "allow".into();
        fill(&mut event);
        self.audit.append(event).durable().await.map(drop)
    }

    /// Records that something was refused to a visitor, as [`Events::stranger`] does.
    pub(crate) fn turned_away(&self, what: &'static str, visitor: &Visitor, error: &Error) {
        self.stranger(what, Surface::Http, visitor.address, Some(visitor.request), error);
    }

    /// Records that a change is about to be made. The end is recorded by [`Record::end`], or when
    /// the record is dropped. Refused while the log cannot be written.
    pub(crate) fn begin<O: Operation>(&self, grant: &Grant<O>, object: String) -> Result<Record> {
        self.audit.healthy()?;
        let mut audit = audited(Phase::Begin, O::INFO.name, grant.caller());
        audit.object = grant.object().to_string();
        audit.decision = "allow".into();
        audit.rule = grant.rule().into();
        let begun = self.audit.append(audit.clone());
        let record = Record {
            events: self.clone(),
            kind: O::INFO.name,
            object,
            principal: grant.principal().id(),
            owner: grant.owner(),
            rule: grant.rule(),
            audit,
            begun: Some(begun),
            open: true,
        };
        record.tell(None, Vec::new());
        Ok(record)
    }
}

fn audited(phase: Phase, operation: &'static str, caller: &Caller) -> AuditEvent {
    let principal = caller.principal();
    let mut event = AuditEvent::new(Timestamp::now(), phase, operation);
    event.principal = principal.id().to_string();
    event.credential = principal.fingerprint().map(str::to_owned);
    event.session = caller.session().map(|id| id.to_string());
    event.surface = caller.surface().as_str().into();
    event.peer = caller.peer().map(|address| address.to_string());
    event.request = caller.request().to_string();
    event
}

/// A change under way.
#[derive(Debug)]
pub(crate) struct Record {
    events: Events,
    kind: &'static str,
    object: String,
    principal: PrincipalId,
    /// Whose the object is: who sees it may hear of this, also when it is gone.
    owner: Option<PrincipalId>,
    rule: &'static str,
    audit: AuditEvent,
    begun: Option<Pending>,
    open: bool,
}

impl Record {
    /// Records the end, and what was made, and returns when that is on the disk.
    pub(crate) async fn end(mut self, outcome: Outcome, made: Vec<String>) -> Result<()> {
        let ended = self.close(outcome, made);
        // It comes after the beginning in the log, so it is there only if that is.
        ended.durable().await.map(drop)
    }

    /// Returns when the beginning is on the disk: for a stream, whose end comes later.
    pub(crate) async fn begun(&mut self) -> Result<()> {
        match self.begun.take() {
            Some(begun) => begun.durable().await.map(drop),
            None => Ok(()),
        }
    }

    /// The end of a stream, at the time that it is dropped.
    pub(crate) fn close_stream(mut self, made: Vec<String>) {
        drop(self.close(Outcome::Ok, made));
    }

    fn close(&mut self, outcome: Outcome, made: Vec<String>) -> Pending {
        self.open = false;
        let mut audit = self.audit.clone();
        (audit.at, audit.phase) = (Timestamp::now(), Phase::End);
        audit.outcome = Some(outcome.as_str().to_owned());
        audit.made.clone_from(&made);
        self.tell(Some(outcome), made);
        self.events.audit.append(audit)
    }

    /// Writes it beside the state, where those who listen read it.
    fn tell(&self, outcome: Option<Outcome>, made: Vec<String>) {
        // What did not exist before is the object of its own making.
        let object = match made.first() {
            Some(first) if self.object.is_empty() => first.clone(),
            _ => self.object.clone(),
        };
        let mut detail = serde_json::Map::new();
        detail.insert("rule".into(), self.rule.into());
        if let Some(owner) = self.owner {
            detail.insert("owner".into(), owner.to_string().into());
        }
        if let Some(outcome) = outcome {
            detail.insert("outcome".into(), outcome.as_str().into());
        }
        if !made.is_empty() {
            detail.insert("made".into(), made.into());
        }
        self.events.store.append_event_relaxed(Event {
            at: Timestamp::now(),
            kind: self.kind.to_owned(),
            object,
            principal: self.principal.to_string(),
            detail: detail.into(),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.open {
            drop(self.close(Outcome::Abandoned, Vec::new()));
        }
    }
}
