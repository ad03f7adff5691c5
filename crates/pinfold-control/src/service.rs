//! The operations. Each function is named like its operation and takes its grant, so the object
//! it acts on is the one that was authorized.

mod execs;
mod files;
mod images;
mod server;
mod snapshots;
mod workspaces;

use std::{path::PathBuf, sync::Arc, time::Instant};

use pinfold_auth::{Grant, ObjectKind, Operation};
use pinfold_store::Store;
use pinfold_types::Result;
use tokio::sync::broadcast;

use crate::{
    InFlight, Node, ServiceEvent,
    events::{Events, Record},
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
    events: Events,
    flights: InFlight,
    facts: ServerFacts,
}

impl<N: Node> Clone for Service<N> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// A call of one operation, from its grant to its end.
struct Call<O: Operation> {
    grant: Grant<O>,
    flight: Flight,
    /// Of operations that change something.
    record: Option<Record>,
}

impl<N: Node> Service<N> {
    /// The operations on `node`, recording into `store`.
    pub fn new(node: N, store: Store, facts: ServerFacts) -> Self {
        Self {
            inner: Arc::new(Inner {
                node,
                events: Events::new(store),
                flights: InFlight::default(),
                facts,
            }),
        }
    }

    /// Calls and streams in flight.
    pub fn in_flight(&self) -> &InFlight {
        &self.inner.flights
    }

    /// Follows what happens from now on. A listener that is more than
    /// [`crate::EVENTS_KEPT`] behind loses the oldest, and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ServiceEvent>> {
        self.inner.events.subscribe()
    }

    fn node(&self) -> &N {
        &self.inner.node
    }

    fn enter<O: Operation>(&self, grant: Grant<O>) -> Call<O> {
        let flight = self.inner.flights.begin();
        let record = O::INFO.mutates().then(|| {
            let object = grant.object();
            // Events name workspaces by id, because a name can be given to another one later.
            let known = match object.kind() {
                ObjectKind::Workspace => self.node().get(object.reference()).ok(),
                _ => None,
            };
            let object =
                known.map_or_else(|| object.reference().to_owned(), |info| info.id.to_string());
            self.inner.events.begin(&grant, object)
        });
        Call { grant, flight, record }
    }
}

impl<O: Operation> Call<O> {
    fn reference(&self) -> &str {
        self.grant.object().reference()
    }

    /// Records the end of a call that made nothing with an id.
    fn end<T>(self, result: Result<T>) -> Result<T> {
        self.end_with(result, |_| Vec::new())
    }

    /// Records the end with the ids of what was made.
    fn end_with<T>(self, result: Result<T>, made: impl FnOnce(&T) -> Vec<String>) -> Result<T> {
        let made = result.as_ref().map(made).unwrap_or_default();
        if let Some(record) = self.record {
            record.end(&result, made);
        }
        result
    }

    /// The same for a stream, which stays in flight as long as it is held.
    fn stream<T>(self, result: Result<T>) -> Result<Tracked<T>> {
        if let Some(record) = self.record {
            record.end(&result, Vec::new());
        }
        result.map(|stream| Tracked::new(stream, self.flight))
    }
}
