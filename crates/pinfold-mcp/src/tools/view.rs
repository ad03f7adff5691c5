//! What models see of things: less than REST shows, and flat.

use std::{collections::BTreeMap, fmt::Write};

use pinfold_types::{snapshot::SnapshotInfo, workspace::WorkspaceInfo};
use schemars::JsonSchema;
use serde::Serialize;

/// A workspace.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WorkspaceView {
    /// Id, for ever.
    pub(crate) id: String,
    /// Name; both are taken wherever a workspace is asked for.
    pub(crate) name: String,
    /// creating, running, paused, stopped, failed, …
    pub(crate) state: String,
    /// Why it is in this state, when it came to it by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Image it stands on.
    image: String,
    /// Limits in force: bytes, thousandths of a CPU, counts.
    pub(crate) limits: BTreeMap<String, u64>,
    /// Workspace it was forked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// Snapshot its disk began as.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_snapshot: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// When it was made.
    created_at: String,
    /// When it will be destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// It is destroyed after this long without use.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_ms: Option<u64>,
    /// What to know about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl From<&WorkspaceInfo> for WorkspaceView {
    fn from(info: &WorkspaceInfo) -> Self {
        let limits = info
            .limits
            .iter()
            .filter_map(|limit| Some((limit.kind.field().to_owned(), limit.value?)))
            .collect();
        Self {
            id: info.id.to_string(),
            name: info.name.to_string(),
            state: info.state.as_str().to_owned(),
            reason: info.reason.clone(),
            image: info.image.clone(),
            limits,
            parent: info.lineage.parent.map(|id| id.to_string()),
            from_snapshot: info.lineage.snapshot.map(|id| id.to_string()),
            labels: info.labels.clone(),
            created_at: info.created_at.to_string(),
            expires_at: info.expires_at.map(|at| at.to_string()),
            idle_ms: info.idle_ms,
            warnings: info.warnings.clone(),
        }
    }
}

impl WorkspaceView {
    /// One line.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} ({}): {}, image {}", self.name, self.id, self.state, self.image);
        if let Some(reason) = &self.reason {
            let _infallible = write!(line, ", {reason}");
        }
        if let Some(at) = &self.expires_at {
            let _infallible = write!(line, ", destroyed at {at}");
        }
        for warning in &self.warnings {
            let _infallible = write!(line, "\n  note: {warning}");
        }
        line
    }
}

/// A snapshot.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SnapshotView {
    /// Id, for ever.
    pub(crate) id: String,
    /// Name; unique among its workspace's snapshots.
    pub(crate) name: String,
    /// Id of the workspace it was taken of.
    workspace: String,
    /// Name of that workspace.
    workspace_name: String,
    /// That workspace is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    workspace_removed: bool,
    /// Bytes that removing it would free.
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive_bytes: Option<u64>,
    /// When it was taken.
    created_at: String,
}

impl From<&SnapshotInfo> for SnapshotView {
    fn from(info: &SnapshotInfo) -> Self {
        Self {
            id: info.id.to_string(),
            name: info.name.to_string(),
            workspace: info.workspace.to_string(),
            workspace_name: info.workspace_name.to_string(),
            workspace_removed: info.workspace_removed,
            exclusive_bytes: info.exclusive_bytes,
            created_at: info.created_at.to_string(),
        }
    }
}

impl SnapshotView {
    /// One line.
    pub(crate) fn line(&self) -> String {
        let gone = if self.workspace_removed { ", which is gone" } else { "" };
        format!(
            "{} ({}) of {}{gone}, taken {}",
            self.name, self.id, self.workspace_name, self.created_at
        )
    }
}
