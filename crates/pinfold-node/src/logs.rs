//! What happened to a workspace, and what its start-up command said last.

use std::collections::VecDeque;

use pinfold_types::{
    Result,
    api::{EventInfo, MAX_PAGE, WorkspaceLogs},
};

use crate::LocalNode;

/// Events read from the store at a time.
const PAGE: u32 = 1000;

impl LocalNode {
    /// The log of a workspace: the newest [`MAX_PAGE`] events after a position, and the last
    /// output of its start-up command, at most [`crate::OUTPUT_TAIL_BYTES`].
    pub async fn logs(&self, reference: &str, after: i64) -> Result<WorkspaceLogs> {
        let workspace = self.inner().registry.find(reference)?;
        let id = workspace.id.to_string();
        let mut events = VecDeque::new();
        let mut after = after;
        loop {
            let page = self.inner().store.events(Some(&id), after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            events.extend(page.into_iter().map(|row| EventInfo {
                seq: row.seq,
                at: row.event.at,
                kind: row.event.kind,
                object: row.event.object,
                principal: row.event.principal,
                detail: row.event.detail,
            }));
            events.drain(..events.len().saturating_sub(MAX_PAGE));
        }
        let (output, lost_bytes) = workspace.tail.read();
        Ok(WorkspaceLogs {
            events: events.into(),
            output: String::from_utf8_lossy(&output).into_owned(),
            lost_bytes,
        })
    }
}
