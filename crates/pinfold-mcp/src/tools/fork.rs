//! Forks.

use std::{collections::BTreeMap, fmt::Write};

use pinfold_auth::ops;
use pinfold_control::Node;
use pinfold_types::{
    Error, Result,
    exec::{Command, ExecSpec},
    limits::MAX_FORK_COUNT,
    workspace::{ForkOutcome, ForkWorkspace, WorkspaceInfo},
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{invalid, workspace::Limits};
use crate::{
    call::Call,
    tool::{Effect, Info, Reply, Tool},
};

pub(crate) struct Fork;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForkInput {
    /// Name or id of the workspace to copy, as it is now. Give this or `snapshot`.
    workspace: Option<String>,
    /// Name or id of the snapshot to begin from.
    snapshot: Option<String>,
    /// How many children, 1 to 1000. Default: as many as `commands`, else 1.
    count: Option<u32>,
    /// Name of the only child, or the beginning of the names NAME-1, NAME-2, … of several.
    name: Option<String>,
    /// One line for /bin/sh per child, started in the background at once. Follow each with
    /// exec_output.
    #[serde(default)]
    commands: Vec<String>,
    /// Limits to narrow; wider than the source's is refused.
    #[serde(default)]
    limits: Limits,
    /// Environment of the children. The source's is not copied.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Destroy the children this long after now.
    ttl_ms: Option<u64>,
    /// Labels of the children.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The children.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Forked {
    /// In order.
    children: Vec<Child>,
}

/// A child, or why it could not be made.
#[derive(Debug, Serialize, JsonSchema)]
struct Child {
    /// Its number, from 1.
    number: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its command, for exec_output.
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_id: Option<String>,
    /// Why it, or its command, could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<N: Node> Tool<N> for Fork {
    const INFO: Info = Info {
        name: "workspace_fork",
        title: "Fork a workspace",
        about: "Makes workspaces whose disks begin as another's is now, or as a snapshot. Disks \
                share what is the same, so many forks are cheap. With commands, each child starts \
                its own at once. Next: exec_output for each child with wait_ms and until_end.",
        operations: &["workspace.fork", "snapshot.fork", "exec.start"],
        effect: Effect::Adds,
        idempotent: false,
        open_world: false,
    };
    type Input = ForkInput;
    type Output = Forked;

    fn needs(arguments: &JsonObject) -> Vec<&'static str> {
        let mut needs = Vec::new();
        if arguments.get("workspace").is_some_and(Value::is_string) {
            needs.push("workspace.fork");
        }
        if arguments.get("snapshot").is_some_and(Value::is_string) {
            needs.push("snapshot.fork");
        }
        if arguments.get("commands").and_then(Value::as_array).is_some_and(|all| !all.is_empty()) {
            needs.push("exec.start");
        }
        needs
    }

    async fn run(call: Call<N>, input: ForkInput) -> Result<Reply<Forked>> {
        let commands = input.commands;
        let many = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        let count = input.count.unwrap_or(many.max(1));
        if many > 0 && many != count {
            return Err(invalid(format!("count is {count}, but there are {many} commands")));
        }
        if !(1..=MAX_FORK_COUNT).contains(&count) {
            return Err(invalid(format!("count must be 1 to {MAX_FORK_COUNT}")));
        }
        let request = ForkWorkspace {
            count,
            name: input.name.map(|name| name.parse()).transpose()?,
            limits: input.limits.into(),
            env: input.env,
            ttl_ms: input.ttl_ms,
            labels: input.labels,
            ..ForkWorkspace::default()
        };
        let outcomes = match (&input.workspace, &input.snapshot) {
            (Some(workspace), None) => {
                let grant = call.on::<ops::WorkspaceFork>(workspace).await?;
                call.service.fork_workspace(grant, request).await?
            }
            (None, Some(snapshot)) => {
                let grant = call.on::<ops::SnapshotFork>(snapshot).await?;
                call.service.fork_snapshot(grant, request).await?
            }
            _ => return Err(invalid("give either workspace or snapshot")),
        };
        let mut lines = commands.into_iter();
        let mut children = Vec::with_capacity(outcomes.len());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            children.push(child(&call, index + 1, outcome, lines.next()).await);
        }
        Ok(Reply::new(text(&children), Forked { children }))
    }
}

async fn child<N: Node>(
    call: &Call<N>,
    number: usize,
    outcome: ForkOutcome,
    command: Option<String>,
) -> Child {
    let failed = |error: Error| Some(format!("{} ({})", error.message, error.code));
    let info = match outcome {
        ForkOutcome::Workspace(info) => info,
        ForkOutcome::Error(error) => {
            return Child { number, id: None, name: None, exec_id: None, error: failed(error) };
        }
    };
    let started = match command {
        Some(line) => start(call, &info, line).await.map(Some),
        None => Ok(None),
    };
    let (exec_id, error) = match started {
        Ok(exec_id) => (exec_id, None),
        Err(error) => (None, failed(error)),
    };
    Child {
        number,
        id: Some(info.id.to_string()),
        name: Some(info.name.to_string()),
        exec_id,
        error,
    }
}

async fn start<N: Node>(call: &Call<N>, info: &WorkspaceInfo, line: String) -> Result<String> {
    let grant = call.on::<ops::ExecStart>(&info.id.to_string()).await?;
    let spec = ExecSpec { command: Command::Shell(line), ..ExecSpec::argv(Vec::<String>::new()) };
    Ok(call.service.start_exec(grant, spec).await?.id.to_string())
}

fn text(children: &[Child]) -> String {
    let made = children.iter().filter(|child| child.id.is_some()).count();
    let mut text = format!("{made} of {} children", children.len());
    for child in children {
        let name = child.name.as_deref().unwrap_or("not made");
        let _infallible = write!(text, "\n{}: {name}", child.number);
        for more in [&child.id, &child.exec_id, &child.error].into_iter().flatten() {
            let _infallible = write!(text, " {more}");
        }
    }
    text
}
