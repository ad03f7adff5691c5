//! What happens, for whoever may see it.

use std::{collections::VecDeque, pin::Pin};

use futures_util::Stream;
use pinfold_auth::{Grant, Principal, ops};
use pinfold_store::EventRow;
use pinfold_types::{Result, WorkspaceId, api::EventInfo};
use tokio::sync::watch;

use crate::{Access, Node, Service, Tracked};

/// Events read at a time.
const PAGE: u32 = 256;

/// Events as they happen.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<EventInfo>> + Send>>;

/// Where a listener is.
struct Listener<N: Node> {
    service: Service<N>,
    caller: Principal,
    after: i64,
    read: VecDeque<EventInfo>,
    written: watch::Receiver<u64>,
}

impl<N: Node> Service<N> {
    /// What happens to everything that the caller sees, after a position or from now on. The last
    /// hundred thousand events are kept; each is told once it is on the disk, so a position never
    /// means another event after a crash.
    pub async fn follow_events(
        &self,
        grant: Grant<ops::EventFollow>,
        after: Option<i64>,
    ) -> Result<Tracked<EventStream>> {
        let call = self.enter(grant)?;
        let store = self.inner.events.store();
        let begun = match after {
            Some(after) => Ok(after),
            None => store.last_event().await,
        };
        let stream = begun.map(|after| {
            let listener = Listener {
                service: self.clone(),
                caller: call.caller().principal().clone(),
                after,
                read: VecDeque::new(),
                written: store.events_written(),
            };
            let happened = futures_util::stream::unfold(listener, |mut listener| async {
                let event = listener.next().await.transpose()?;
                Some((event, listener))
            });
            Box::pin(happened) as EventStream
        });
        call.stream(stream).await
    }
}

impl<N: Node> Listener<N> {
    /// The next event; `None` when the store is closed.
    async fn next(&mut self) -> Result<Option<EventInfo>> {
        loop {
            while let Some(event) = self.read.pop_front() {
                if visible(self.service.access(), &self.caller, &event) {
                    return Ok(Some(event));
                }
            }
            // Marked before the read, so that what is written meanwhile wakes the wait.
            self.written.mark_unchanged();
            let page = self.service.inner.events.store().events(None, self.after, PAGE).await?;
            let Some(last) = page.last() else {
                if self.written.changed().await.is_err() {
                    return Ok(None);
                }
                continue;
            };
            self.after = last.seq;
            self.read.extend(page.into_iter().map(told));
        }
    }
}

fn told(EventRow { seq, event }: EventRow) -> EventInfo {
    EventInfo {
        seq,
        at: event.at,
        kind: event.kind,
        object: event.object,
        principal: event.principal,
        detail: event.detail,
    }
}

/// Whether a caller sees what an event is about: what it or a principal below it did, and what
/// befell something of theirs. One that is bound to workspaces hears of those alone.
fn visible(access: &Access, caller: &Principal, event: &EventInfo) -> bool {
    if let Some(bound) = &caller.authority().workspaces {
        let about = event.object.parse::<WorkspaceId>();
        if !about.is_ok_and(|workspace| bound.contains(&workspace)) {
            return false;
        }
    }
    let owner = event.detail["owner"].as_str();
    let somebody = [Some(event.principal.as_str()), owner];
    Access::sees_all(caller)
        || somebody
            .into_iter()
            .flatten()
            .filter_map(|id| id.parse().ok())
            .any(|id| access.sees(caller, Some(id)))
}
