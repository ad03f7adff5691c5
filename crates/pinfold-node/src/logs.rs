//! What happened to a workspace, and what its start-up command said last.

use std::{collections::VecDeque, time::Duration};

use pinfold_types::{
    Result, WorkspaceState,
    api::{EventInfo, MAX_PAGE, WorkspaceLogs},
};

use crate::LocalNode;

/// How long after a start a log waits for the first output of the start-up command.
const FIRST_OUTPUT: Duration = Duration::from_secs(1);
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
        let started = workspace.with_row(|row| row.started_at).unwrap_or_default();
        let age = Duration::try_from(jiff::Timestamp::now().duration_since(started));
        let patience = FIRST_OUTPUT.saturating_sub(age.unwrap_or_default());
        if workspace.state() == WorkspaceState::Running
            && workspace.with_row(|row| row.spec.command.is_some())
            && !patience.is_zero()
        {
            // A command that was just started is heard out first.
            let _silent = tokio::time::timeout(patience, workspace.tail.spoken()).await;
        }
        let kept = workspace.tail.read();
        let held = u64::try_from(kept.bytes.len()).expect("a usize fits");
        Ok(WorkspaceLogs {
            events: events.into(),
            output: String::from_utf8_lossy(&kept.bytes).into_owned(),
            lost_bytes: kept.lost_bytes,
            end: kept.lost_bytes + held,
            exec_id: kept.exec,
        })
    }
}
