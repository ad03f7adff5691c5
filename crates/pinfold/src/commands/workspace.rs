//! `create`, `ls`, `info`, `start`, `stop`, `pause`, `resume`, `rm`, `rename`, `set`, `stats`,
//! `logs`.

mod show;

pub(super) use show::limit_line;

use std::fmt::Write;

use http::Method;
use pinfold_types::{
    Error, ErrorCode, Result,
    api::{Page, WorkspaceLogs},
    exec::ExecSpec,
    workspace::{CreateWorkspace, UpdateWorkspace, WorkspaceInfo, WorkspaceStats},
};
use serde_json::Value;

use super::{Context, Several, workspace_path};
use crate::{
    args::{
        values::{EnvVar, Pair, WorkspaceRef},
        workspace::{Create, Logs, Ls, New, Refs, Rename, Rm, Set},
    },
    output::{
        escape, human,
        table::{Cell, Table},
    },
};

/// The route of the collection.
const COLLECTION: &str = "/api/v1/workspaces";

/// What `create` and `run` have in common, checked.
pub(super) fn request(new: New) -> Result<CreateWorkspace> {
    let request = CreateWorkspace {
        image: new.image,
        limits: new.limits.limits()?,
        nested: new.nested,
        self_access: new.self_access,
        allow_unlimited: new.allow_unlimited,
        env: new.env.into_iter().map(|EnvVar(name, value)| (name, value)).collect(),
        hostname: new.hostname,
        labels: new.label.into_iter().map(|Pair(name, value)| (name, value)).collect(),
        ..CreateWorkspace::default()
    };
    request.check()?;
    Ok(request)
}

pub(super) async fn create(context: &Context, args: Create) -> Result<()> {
    let mut request = request(args.new)?;
    request.name = args.name;
    request.ttl_ms = args.ttl.map(|time| time.0);
    request.idle_ms = args.idle.map(|time| time.0);
    request.stopped = args.stopped;
    if !args.command.is_empty() {
        let mut spec = ExecSpec::argv(args.command);
        spec.background = true;
        request.command = Some(spec);
    }
    request.check()?;
    let _explained = super::explain_first(context, request.image.as_ref(), false);
    let made: WorkspaceInfo = context.client.send(Method::POST, COLLECTION, &request).await?;
    context.output.show(&made, |made| format!("{}\n", made.name))
}

/// A whole list, in JSON as the one page that it would be.
pub(super) fn listed<T: serde::Serialize>(
    context: &Context,
    items: Vec<T>,
    human: impl FnOnce(&[T]) -> String,
) -> Result<()> {
    context.output.show(&Page { items, next: None }, |page| human(&page.items))
}

/// Every workspace, page by page.
pub(super) async fn all(context: &Context) -> Result<Vec<WorkspaceInfo>> {
    context.client.pages(COLLECTION).await
}

async fn chosen(
    context: &Context,
    names: &[WorkspaceRef],
    code: &mut Several,
) -> Result<Vec<WorkspaceInfo>> {
    if names.is_empty() {
        return all(context).await;
    }
    let mut found = Vec::new();
    for name in names {
        match context.client.get(&workspace_path(name, "")).await {
            Ok(info) => found.push(info),
            Err(error) => code.note(&context.output, &error),
        }
    }
    Ok(found)
}

pub(super) async fn ls(context: &Context, args: &Ls) -> Result<u8> {
    let mut code = Several::default();
    let found = chosen(context, &args.workspaces, &mut code).await?;
    listed(context, found, |found| {
        if context.output.quiet() {
            // For `xargs` and loops: what the other commands take, one a line.
            let names = found.iter().flat_map(|info| [info.name.as_str(), "\n"]);
            return names.collect();
        }
        show::list(context.output.color(), found)
    })?;
    Ok(code.0)
}

pub(super) async fn info(context: &Context, args: &Refs) -> Result<u8> {
    let mut code = Several::default();
    let found = chosen(context, &args.workspaces, &mut code).await?;
    if let ([only], true) = (found.as_slice(), args.workspaces.len() == 1) {
        context.output.show(only, show::details)?;
    } else {
        context
            .output
            .show(&found, |found| found.iter().map(show::details).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(code.0)
}

/// `POST …/{verb}` on each.
pub(super) async fn act(context: &Context, names: &[WorkspaceRef], verb: &str) -> Result<u8> {
    let mut code = Several::default();
    for name in names {
        let path = workspace_path(name, &format!("/{verb}"));
        match context.client.act::<WorkspaceInfo>(Method::POST, &path).await {
            Ok(info) => {
                context.output.show(&info, |info| format!("{} {}\n", info.name, info.state))?;
                for warning in &info.warnings {
                    context.output.note(format!("warning: {}: {warning}", info.name));
                }
            }
            Err(error) => code.note(&context.output, &error),
        }
    }
    Ok(code.0)
}

pub(super) async fn rm(context: &Context, args: &Rm) -> Result<u8> {
    let mut code = Several::default();
    let names = if args.all {
        all(context).await?.iter().map(|info| info.name.as_str().parse()).collect::<Result<_>>()?
    } else {
        args.workspaces.clone()
    };
    for name in names {
        let path = workspace_path(&name, "");
        let snapshots = if args.snapshots {
            super::snapshot::of_workspace(context, &name).await.unwrap_or_default()
        } else {
            Vec::new()
        };
        match context.client.act::<Value>(Method::DELETE, &path).await {
            Ok(_) if context.output.json() => {}
            Ok(_) => context.output.line(&name)?,
            Err(error) if args.force && error.code == ErrorCode::NotFound => {}
            Err(error) => {
                code.note(&context.output, &error);
                continue;
            }
        }
        for snapshot in snapshots {
            let path = format!("/api/v1/snapshots/{}", snapshot.id);
            if let Err(error) = context.client.act::<Value>(Method::DELETE, &path).await {
                code.note(&context.output, &error);
            }
        }
    }
    Ok(code.0)
}

async fn update(context: &Context, name: &WorkspaceRef, change: &UpdateWorkspace) -> Result<()> {
    let path = workspace_path(name, "");
    let info: WorkspaceInfo = context.client.send(Method::PATCH, &path, change).await?;
    context.output.show(&info, |info| format!("{}\n", info.name))
}

pub(super) async fn rename(context: &Context, args: Rename) -> Result<()> {
    let change = UpdateWorkspace { name: Some(args.name), ..UpdateWorkspace::default() };
    update(context, &args.workspace, &change).await
}

pub(super) async fn set(context: &Context, args: Set) -> Result<()> {
    let labels = args.label.into_iter().map(|Pair(name, value)| (name, value));
    let labels: std::collections::BTreeMap<_, _> = labels.collect();
    let change = UpdateWorkspace {
        name: args.name,
        limits: args.limits.limits()?,
        ttl_ms: args.ttl.map(|time| time.0),
        idle_ms: args.idle.map(|time| time.0),
        labels: (!labels.is_empty()).then_some(labels),
    };
    if change == UpdateWorkspace::default() {
        return Err(Error::new(ErrorCode::InvalidArgument, "nothing to change was given")
            .hint("give a limit such as --memory 2GiB, --ttl, --idle, --name or --label"));
    }
    update(context, &args.workspace, &change).await
}

pub(super) async fn stats(context: &Context, args: &Ls) -> Result<u8> {
    let mut code = Several::default();
    let named = !args.workspaces.is_empty();
    let mut rows: Vec<(WorkspaceInfo, WorkspaceStats)> = Vec::new();
    for info in chosen(context, &args.workspaces, &mut code).await? {
        if !named && !info.state.is_live() {
            continue;
        }
        match context.client.get(&format!("{COLLECTION}/{}/stats", info.id)).await {
            Ok(stats) => rows.push((info, stats)),
            Err(error) if !named && error.code == ErrorCode::NotFound => {}
            Err(error) => code.note(&context.output, &error),
        }
    }
    if context.output.json() {
        let objects: Vec<Value> = rows
            .iter()
            .map(|(info, stats)| serde_json::json!({"id": info.id, "name": info.name, "stats": stats}))
            .collect();
        context.output.value(&objects)?;
    } else {
        context.output.text(&show::usage(context.output.color(), &rows))?;
    }
    Ok(code.0)
}

pub(super) async fn logs(context: &Context, args: &Logs) -> Result<()> {
    let logs: WorkspaceLogs = context.client.get(&workspace_path(&args.workspace, "/logs")).await?;
    context.output.show(&logs, |logs| {
        let mut table = Table::new(context.output.color(), &["TIME", "EVENT", "BY", "DETAIL"]);
        for event in &logs.events {
            let detail = match &event.detail {
                Value::Null => String::new(),
                Value::Object(fields) if fields.is_empty() => String::new(),
                other => other.to_string(),
            };
            table.row([
                Cell::from(human::moment(event.at)),
                event.kind.as_str().into(),
                event.principal.as_str().into(),
                detail.into(),
            ]);
        }
        let mut out = table.render();
        if !logs.output.is_empty() || logs.lost_bytes > 0 {
            out.push_str("\noutput of its command");
            if logs.lost_bytes > 0 {
                let _infallible = write!(out, " ({} bytes before are gone)", logs.lost_bytes);
            }
            out.push('\n');
            out.push_str(&escape::lines(&logs.output));
            if !out.ends_with('\n') && !args.follow {
                out.push('\n');
            }
        }
        out
    })?;
    if !args.follow {
        return Ok(());
    }
    let exec = logs.exec_id.ok_or_else(|| {
        Error::new(ErrorCode::Conflict, "no command of the workspace is to be followed")
            .hint("only one given at create, in a running workspace, is: see pinfold attach")
    })?;
    // The code is the command's; this one has done what it was asked.
    super::exec::follow(context, &args.workspace, exec, logs.end).await.map(drop)
}
