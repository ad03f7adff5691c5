//! What happened: recorded with the state, and told to whoever listens.
//!
//! An event never holds a value that a caller sent as content: no environment, no arguments, no
//! file bytes, no URL.

use std::sync::Arc;

use jiff::Timestamp;
use pinfold_auth::{Caller, Grant, ObjectRef, Operation, OperationInfo};
use pinfold_store::{Event, Store};
use pinfold_types::{Error, ErrorCode, PrincipalId, Result};
use serde::Serialize;
use tokio::sync::broadcast;

/// Events that a slow listener may be behind before it loses the oldest.
pub const EVENTS_KEPT: usize = 1024;

/// A change, before or after it was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceEvent {
    /// When.
    pub at: Timestamp,
    /// Name of the operation.
    pub kind: &'static str,
    /// On what: an id, where the reference meant something that exists.
    pub object: String,
    /// By whom.
    pub principal: PrincipalId,
    /// Which rule allowed it.
    pub rule: &'static str,
    /// How it ended; absent in the event before the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What came of it, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<String>,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
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
}

/// The recorder of one service.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    store: Store,
    listeners: broadcast::Sender<Arc<ServiceEvent>>,
}

impl Events {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, listeners: broadcast::Sender::new(EVENTS_KEPT) }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<ServiceEvent>> {
        self.listeners.subscribe()
    }

    /// Records that somebody was not let do something.
    pub(crate) fn refused(
        &self,
        caller: &Caller,
        operation: &OperationInfo,
        object: &ObjectRef,
        error: &Error,
    ) {
        let record = Record {
            events: self.clone(),
            kind: operation.name,
            object: object.reference().to_owned(),
            principal: caller.principal().id(),
            rule: "refused",
            open: false,
        };
        record.write(Some(Outcome::Failed(error.code)), Vec::new());
    }

    /// Records that a change is about to be made. The end is recorded by [`Record::end`], or when
    /// the record is dropped.
    pub(crate) fn begin<O: Operation>(&self, grant: &Grant<O>, object: String) -> Record {
        let record = Record {
            events: self.clone(),
            kind: O::INFO.name,
            object,
            principal: grant.principal().id(),
            rule: grant.rule(),
            open: true,
        };
        record.write(None, Vec::new());
        record
    }
}

/// A change under way.
#[derive(Debug)]
pub(crate) struct Record {
    events: Events,
    kind: &'static str,
    object: String,
    principal: PrincipalId,
    rule: &'static str,
    open: bool,
}

impl Record {
    /// Records the end, and what was made.
    pub(crate) async fn end(mut self, outcome: Outcome, made: Vec<String>) -> Result<()> {
        self.open = false;
        self.write(Some(outcome), made);
        Ok(())
    }

    fn write(&self, outcome: Option<Outcome>, made: Vec<String>) {
        // What did not exist before is the object of its own making.
        let object = match made.first() {
            Some(first) if self.object.is_empty() => first.clone(),
            _ => self.object.clone(),
        };
        let event = ServiceEvent {
            at: Timestamp::now(),
            kind: self.kind,
            object,
            principal: self.principal,
            rule: self.rule,
            outcome,
            made,
        };
        let mut detail = serde_json::Map::new();
        detail.insert("rule".into(), event.rule.into());
        if let Some(outcome) = outcome {
            let text = match outcome {
                Outcome::Ok => "ok",
                Outcome::Failed(code) => code.as_str(),
                Outcome::Abandoned => "abandoned",
            };
            detail.insert("outcome".into(), text.into());
        }
        if !event.made.is_empty() {
            detail.insert("made".into(), event.made.clone().into());
        }
        self.events.store.append_event_relaxed(Event {
            at: event.at,
            kind: event.kind.to_owned(),
            object: event.object.clone(),
            principal: event.principal.to_string(),
            detail: detail.into(),
        });
        // Nobody may be listening.
        let _ = self.events.listeners.send(Arc::new(event));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.open {
            self.write(Some(Outcome::Abandoned), Vec::new());
        }
    }
}
