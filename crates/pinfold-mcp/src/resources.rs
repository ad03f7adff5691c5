//! Things to read by address: workspaces, their files, logs and output.

use pinfold_auth::ops;
use pinfold_control::Node;
use pinfold_types::{
    Error, ErrorCode, ExecId, Result,
    api::{LogsQuery, PageQuery},
};
use rmcp::{
    ErrorData,
    model::{
        ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate,
    },
};
use serde_json::json;

use crate::{
    call::Call,
    limits::MAX_RESOURCE_BYTES,
    tools::{
        exec_background,
        file::{self, Wanted},
        view::WorkspaceView,
    },
    uri::{self, Address},
};

/// Operations that reading resources may use.
pub const OPERATIONS: &[&str] = &[
    "workspace.list",
    "workspace.read",
    "workspace.logs",
    "file.read",
    "exec.list",
    "exec.attach",
];

const ALL: &str = "pinfold://workspaces";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

/// Addresses with blanks to fill in.
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    let template = |uri: &str, name: &str, about: &str, kind: Option<&str>| {
        let template = ResourceTemplate::new(uri, name).with_description(about);
        match kind {
            Some(kind) => template.with_mime_type(kind),
            None => template,
        }
    };
    vec![
        template(
            "pinfold://workspace/{workspace}",
            "workspace",
            "A workspace by name or id: state, limits, lineage.",
            Some(JSON),
        ),
        template(
            "pinfold://workspace/{workspace}/file/{+path}{?offset}",
            "file",
            "A file of a workspace from a byte on, at most 1 MiB: text, or base64 when it is not.",
            None,
        ),
        template(
            "pinfold://workspace/{workspace}/exec/{exec}/output{?from}",
            "output",
            "Output of a command from a byte on, both streams in order, at most 1 MiB.",
            Some(TEXT),
        ),
        template(
            "pinfold://workspace/{workspace}/logs",
            "logs",
            "What happened to a workspace.",
            Some(JSON),
        ),
    ]
}

/// One page of the workspaces, and before them the list of all.
pub(crate) async fn list<N: Node>(
    call: &Call<N>,
    cursor: Option<String>,
) -> Result<ListResourcesResult> {
    let first = cursor.is_none();
    let grant = call.on_server::<ops::WorkspaceList>().await?;
    let page = call.service.list_workspaces(grant, &PageQuery { cursor, limit: Some(100) }).await?;
    let whole = Resource::new(ALL, "workspaces")
        .with_description("All workspaces, the first thousand.")
        .with_mime_type(JSON);
    let each = page.items.iter().map(|info| {
        Resource::new(uri::workspace(&info.id.to_string()), info.name.to_string())
            .with_description(format!("Workspace {}, {}", info.name, info.state.as_str()))
            .with_mime_type(JSON)
    });
    let resources = first.then_some(whole).into_iter().chain(each).collect();
    let mut result = ListResourcesResult::with_all_items(resources);
    result.next_cursor = page.next;
    Ok(result)
}

/// The operations that reading an address needs the right to.
pub(crate) fn needs(address: &str) -> Vec<&'static str> {
    match uri::parse(address) {
        Ok(Address::Workspaces) => vec!["workspace.list"],
        Ok(Address::Workspace(_)) => vec!["workspace.read"],
        Ok(Address::Logs(_)) => vec!["workspace.logs"],
        Ok(Address::File { .. }) => vec!["file.read"],
        Ok(Address::Output { .. }) => vec!["exec.list", "exec.attach"],
        Err(_) => Vec::new(),
    }
}

/// What is at an address.
pub(crate) async fn read<N: Node>(call: &mut Call<N>, address: &str) -> Result<ReadResourceResult> {
    let contents = match uri::parse(address)? {
        Address::Workspaces => {
            let grant = call.on_server::<ops::WorkspaceList>().await?;
            let query = PageQuery { cursor: None, limit: Some(1000) };
            let page = call.service.list_workspaces(grant, &query).await?;
            let views: Vec<_> = page.items.iter().map(WorkspaceView::from).collect();
            document(&json!({"workspaces": views, "more": page.next.is_some()}), address)
        }
        Address::Workspace(workspace) => {
            let grant = call.on::<ops::WorkspaceRead>(&workspace).await?;
            document(&json!(WorkspaceView::from(&call.service.workspace(grant).await?)), address)
        }
        Address::Logs(workspace) => {
            let grant = call.on::<ops::WorkspaceLogs>(&workspace).await?;
            let logs = call.service.workspace_logs(grant, LogsQuery::default()).await?;
            document(&json!(logs), address)
        }
        Address::File { workspace, path, offset } => {
            let wanted =
                Wanted { path, offset, skip_lines: 0, lines: u64::MAX, max: limit()?, text: false };
            let part = file::read(call, &workspace, &wanted).await?;
            if part.more {
                return Err(Error::new(
                    ErrorCode::TooLarge,
                    format!("more than {MAX_RESOURCE_BYTES} bytes are left of {}", wanted.path),
                )
                .hint("read it in parts with the tool file_read"));
            }
            match String::from_utf8(part.bytes) {
                Ok(text) => ResourceContents::text(text, address).with_mime_type(TEXT),
                Err(bytes) => {
                    let blob = data_encoding::BASE64.encode(bytes.as_bytes());
                    ResourceContents::blob(blob, address).with_mime_type("application/octet-stream")
                }
            }
        }
        Address::Output { workspace, exec, from } => {
            let exec: ExecId = exec.parse()?;
            let bytes = exec_background::held(call, &workspace, exec, from, limit()?).await?;
            let text = String::from_utf8_lossy(&bytes);
            ResourceContents::text(text, address).with_mime_type(TEXT)
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

fn document(value: &serde_json::Value, address: &str) -> ResourceContents {
    ResourceContents::text(value.to_string(), address).with_mime_type(JSON)
}

fn limit() -> Result<usize> {
    usize::try_from(MAX_RESOURCE_BYTES).map_err(Error::internal)
}

/// What cannot be read is a fault of the protocol: there is no result to say it in.
pub(crate) fn refused(error: &Error) -> ErrorData {
    let code = match error.code {
        ErrorCode::NotFound => rmcp::model::ErrorCode::RESOURCE_NOT_FOUND,
        ErrorCode::Internal => rmcp::model::ErrorCode::INTERNAL_ERROR,
        _ => rmcp::model::ErrorCode::INVALID_PARAMS,
    };
    let mut data = json!({"code": error.code});
    if let Some(hint) = &error.hint {
        data["hint"] = hint.as_str().into();
    }
    if let Some(ms) = error.retry_after_ms {
        data["retry_after_ms"] = ms.into();
    }
    if error.code == ErrorCode::Internal {
        tracing::error!(cause = error.internal, "a resource could not be read");
    }
    ErrorData::new(code, error.message.clone(), Some(data))
}
