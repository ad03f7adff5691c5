//! Snapshots.

use std::fmt::Write;

use pinfold_auth::ops;
use pinfold_control::Node;
use pinfold_types::{
    Result,
    api::{PageQuery, RestoreWorkspace},
    snapshot::CreateSnapshot,
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    count,
    view::{SnapshotView, WorkspaceView},
};
use crate::{
    call::Call,
    tool::{Effect, Info, Reply, Tool},
};

pub(crate) struct Create;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Name, unique among the workspace's snapshots. Made up when left out.
    name: Option<String>,
}

/// A snapshot that was taken.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Created {
    snapshot: SnapshotView,
}

impl<N: Node> Tool<N> for Create {
    const INFO: Info = Info {
        name: "snapshot_create",
        title: "Take a snapshot",
        about: "Takes a snapshot of a workspace's disk; its processes go on. Next: \
                snapshot_restore to go back to it, workspace_fork to make workspaces from it.",
        operations: &["snapshot.create"],
        effect: Effect::Adds,
        idempotent: false,
        open_world: false,
    };
    type Input = CreateInput;
    type Output = Created;

    async fn run(call: Call<N>, input: CreateInput) -> Result<Reply<Created>> {
        let request = CreateSnapshot {
            name: input.name.map(|name| name.parse()).transpose()?,
            ..CreateSnapshot::default()
        };
        let grant = call.on::<ops::SnapshotCreate>(&input.workspace).await?;
        let info = call.service.create_snapshot(grant, request).await?;
        let snapshot = SnapshotView::from(&info);
        Ok(Reply::new(format!("Took {}", snapshot.line()), Created { snapshot }))
    }
}

pub(crate) struct List;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListInput {
    /// Only those of this workspace, by name or id. Default: all.
    workspace: Option<String>,
    /// `next` of the page before. Leave out for the first page.
    cursor: Option<String>,
    /// Most entries, 1 to 1000. Default 100.
    limit: Option<usize>,
}

/// A page of snapshots.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listed {
    /// Oldest first.
    snapshots: Vec<SnapshotView>,
    /// Give it as `cursor` for the next page. Absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl<N: Node> Tool<N> for List {
    const INFO: Info = Info {
        name: "snapshot_list",
        title: "List snapshots",
        about: "Lists the snapshots of a workspace, or all.",
        operations: &["workspace.snapshots", "snapshot.list"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = ListInput;
    type Output = Listed;

    fn needs(arguments: &JsonObject) -> Vec<&'static str> {
        let one = arguments.get("workspace").is_some_and(Value::is_string);
        vec![if one { "workspace.snapshots" } else { "snapshot.list" }]
    }

    async fn run(call: Call<N>, input: ListInput) -> Result<Reply<Listed>> {
        let limit = Some(input.limit.unwrap_or(crate::limits::DEFAULT_PAGE));
        let query = PageQuery { cursor: input.cursor, limit };
        let page = if let Some(workspace) = &input.workspace {
            let grant = call.on::<ops::WorkspaceSnapshots>(workspace).await?;
            call.service.workspace_snapshots(grant, &query).await?
        } else {
            let grant = call.on_server::<ops::SnapshotList>().await?;
            call.service.list_snapshots(grant, &query).await?
        };
        let snapshots: Vec<_> = page.items.iter().map(SnapshotView::from).collect();
        let mut text = count(snapshots.len(), "snapshot");
        for one in &snapshots {
            let _infallible = write!(text, "\n{}", one.line());
        }
        if let Some(next) = &page.next {
            let _infallible = write!(text, "\nThere are more: cursor {next}");
        }
        Ok(Reply::new(text, Listed { snapshots, next: page.next }))
    }
}

pub(crate) struct Restore;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Name or id of one of its snapshots.
    snapshot: String,
}

/// A workspace as it was.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Restored {
    workspace: WorkspaceView,
}

impl<N: Node> Tool<N> for Restore {
    const INFO: Info = Info {
        name: "snapshot_restore",
        title: "Go back to a snapshot",
        about: "Puts a workspace's disk back to one of its snapshots. Its processes are ended and \
                what was written since is lost; its other snapshots stay.",
        operations: &["workspace.restore"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = RestoreInput;
    type Output = Restored;

    async fn run(call: Call<N>, input: RestoreInput) -> Result<Reply<Restored>> {
        let grant = call.on::<ops::WorkspaceRestore>(&input.workspace).await?;
        let request = RestoreWorkspace { snapshot: input.snapshot };
        let info = call.service.restore_workspace(grant, &request).await?;
        let workspace = WorkspaceView::from(&info);
        let text = format!("{} is at {} again", workspace.line(), request.snapshot);
        Ok(Reply::new(text, Restored { workspace }))
    }
}

pub(crate) struct Remove;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveInput {
    /// Id of the snapshot, or its name where only one has it.
    snapshot: String,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RemovedView {
    /// Ids.
    removed: Vec<String>,
    freed_bytes: u64,
}

impl<N: Node> Tool<N> for Remove {
    const INFO: Info = Info {
        name: "snapshot_remove",
        title: "Remove a snapshot",
        about: "Removes a snapshot, for ever. Workspaces that were forked from it stay.",
        operations: &["snapshot.remove"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = RemoveInput;
    type Output = RemovedView;

    async fn run(call: Call<N>, input: RemoveInput) -> Result<Reply<RemovedView>> {
        let grant = call.on::<ops::SnapshotRemove>(&input.snapshot).await?;
        let removed = call.service.remove_snapshot(grant).await?;
        let text = format!("Removed {}: {} bytes are free", input.snapshot, removed.freed_bytes);
        let ids = removed.snapshots.iter().map(ToString::to_string).collect();
        Ok(Reply::new(text, RemovedView { removed: ids, freed_bytes: removed.freed_bytes }))
    }
}
