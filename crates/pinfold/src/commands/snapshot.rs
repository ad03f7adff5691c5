//! `snapshot create|ls|restore|rm`.

use http::Method;
use pinfold_types::{
    ByteSize, Error, ErrorCode, Result, SnapshotId,
    api::{Removed, RestoreWorkspace},
    snapshot::{CreateSnapshot, SnapshotInfo, SnapshotKind},
    workspace::WorkspaceInfo,
};

use super::{Context, Several, workspace, workspace_path};
use crate::{
    args::{
        snapshot::{Snapshot, SnapshotCreate, SnapshotLs, SnapshotRestore, SnapshotRm},
        values::{SnapshotRef, WorkspaceRef},
    },
    output::{
        human,
        table::{Cell, Table},
    },
};

const ALL: &str = "/api/v1/snapshots";

pub(super) async fn snapshot(context: &Context, args: Snapshot) -> Result<u8> {
    match args {
        Snapshot::Create(args) => create(context, args).await.map(|()| 0),
        Snapshot::Ls(args) => ls(context, &args).await.map(|()| 0),
        Snapshot::Restore(args) => restore(context, args).await.map(|()| 0),
        Snapshot::Rm(args) => rm(context, &args).await,
    }
}

async fn create(context: &Context, args: SnapshotCreate) -> Result<()> {
    let body = CreateSnapshot { name: args.name, kind: SnapshotKind::Disk };
    let path = workspace_path(&args.workspace, "/snapshots");
    let made: SnapshotInfo = context.client.send(Method::POST, &path, &body).await?;
    context.output.show(&made, |made| format!("{} {}\n", made.id, made.name))
}

async fn ls(context: &Context, args: &SnapshotLs) -> Result<()> {
    let found = match &args.workspace {
        Some(workspace) => of_workspace(context, workspace).await?,
        None => context.client.pages(ALL).await?,
    };
    workspace::listed(context, found, |found| {
        let headings = &["ID", "NAME", "WORKSPACE", "AGE", "SIZE", "OWN", "METHOD"];
        let mut table = Table::new(context.output.color(), headings);
        let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |b| ByteSize(b).to_string());
        for info in found {
            table.row([
                Cell::from(info.id.to_string()),
                info.name.as_str().into(),
                Cell::from(owner(info)),
                human::age(info.created_at).into(),
                size(info.referenced_bytes).into(),
                size(info.exclusive_bytes).into(),
                info.method.as_str().into(),
            ]);
        }
        table.render()
    })
}

async fn restore(context: &Context, args: SnapshotRestore) -> Result<()> {
    let body = RestoreWorkspace { snapshot: args.snapshot };
    let path = workspace_path(&args.workspace, "/restore");
    let info: WorkspaceInfo = context.client.send(Method::POST, &path, &body).await?;
    context.output.show(&info, |info| format!("{} {}\n", info.name, info.state))
}

async fn rm(context: &Context, args: &SnapshotRm) -> Result<u8> {
    let mut code = Several::default();
    for reference in &args.snapshots {
        let removed = async {
            let id = resolve(context, reference).await?;
            let path = format!("/api/v1/snapshots/{id}");
            let removed: Removed = context.client.act(Method::DELETE, &path).await?;
            context
                .output
                .show(&removed, |removed| format!("{id} freed {}\n", ByteSize(removed.freed_bytes)))
        };
        if let Err(error) = removed.await {
            code.note(&context.output, &error);
        }
    }
    Ok(code.0)
}

/// The id of a snapshot that may be named.
pub(super) async fn resolve(context: &Context, reference: &SnapshotRef) -> Result<SnapshotId> {
    match reference {
        SnapshotRef::Id(id) => Ok(*id),
        SnapshotRef::Named(workspace, name) => {
            let mut found = of_workspace(context, workspace).await?;
            found.retain(|info| info.name == *name);
            match found.as_slice() {
                [] => Err(Error::not_found("snapshot", format!("{workspace}:{name}"))
                    .hint("pinfold snapshot ls lists them")),
                [one] => Ok(one.id),
                several => Err(Error::new(
                    ErrorCode::Conflict,
                    format!(
                        "{} removed workspaces had a snapshot {workspace}:{name}",
                        several.len()
                    ),
                )
                .hint("give its id: pinfold snapshot ls")),
            }
        }
    }
}

/// The snapshots of a workspace, or of those of that name that are gone.
pub(super) async fn of_workspace(
    context: &Context,
    workspace: &WorkspaceRef,
) -> Result<Vec<SnapshotInfo>> {
    let path = workspace_path(workspace, "/snapshots");
    let unknown = match context.client.pages(&path).await {
        Err(unknown) if unknown.code == ErrorCode::NotFound => unknown,
        known => return known,
    };
    let mut left: Vec<SnapshotInfo> = context.client.pages(ALL).await?;
    let reference = workspace.to_string();
    left.retain(|info| {
        info.workspace_removed
            && (info.workspace_name.as_str() == reference
                || info.workspace.to_string() == reference)
    });
    if left.is_empty() { Err(unknown) } else { Ok(left) }
}

fn owner(info: &SnapshotInfo) -> String {
    let gone = if info.workspace_removed { " (removed)" } else { "" };
    format!("{}{gone}", info.workspace_name)
}
