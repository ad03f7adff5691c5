//! Workspaces from making to removing.

use std::{collections::BTreeMap, fmt::Write};

use pinfold_auth::ops;
use pinfold_control::Node;
use pinfold_types::{
    Result,
    api::{LogsQuery, PortInfo},
    exec::{Command, ExecSpec},
    limits::ResourceLimits,
    workspace::{CreateWorkspace, UpdateWorkspace, WorkspaceStats},
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Paged, Workspace, count, invalid, view::WorkspaceView};
use crate::{
    call::Call,
    cut::Gather,
    limits::DEFAULT_OUTPUT_BYTES,
    tool::{Effect, Info, Reply, Tool},
};

/// Limits, as a model sets them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Memory in bytes.
    memory_bytes: Option<u64>,
    /// CPU in thousandths of one CPU: 1500 is one and a half.
    cpu_millis: Option<u64>,
    /// Most processes and threads.
    pids: Option<u64>,
    /// Bytes on its disk.
    disk_bytes: Option<u64>,
}

impl From<Limits> for ResourceLimits {
    fn from(limits: Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            cpu_millis: limits.cpu_millis,
            pids: limits.pids,
            disk_bytes: limits.disk_bytes,
            ..Self::default()
        }
    }
}

/// One workspace as the result of what was done to it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct One {
    /// The workspace.
    workspace: WorkspaceView,
}

fn one(done: &str, info: &pinfold_types::workspace::WorkspaceInfo) -> Reply<One> {
    let workspace = WorkspaceView::from(info);
    Reply::new(format!("{done} {}", workspace.line()), One { workspace })
}

/// A line for the shell, to run at every boot.
pub(crate) fn background(line: String) -> ExecSpec {
    ExecSpec {
        command: Command::Shell(line),
        background: true,
        ..ExecSpec::argv(Vec::<String>::new())
    }
}

pub(crate) struct Create;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateInput {
    /// Unique name, 1 to 63 of A-Z a-z 0-9 . _ -. Made up when left out.
    name: Option<String>,
    /// Image it stands on. Default: the server's, usually `host`: this machine's own programs.
    image: Option<String>,
    /// Limits. What is left out takes the server's defaults.
    #[serde(default)]
    limits: Limits,
    /// Environment of every command.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Destroy it this long after now.
    ttl_ms: Option<u64>,
    /// Destroy it after this long without use.
    idle_ms: Option<u64>,
    /// A line for /bin/sh that is started at every boot, in the background.
    command: Option<String>,
    /// Allow user and mount namespaces inside, for rootless containers.
    #[serde(default)]
    nested: bool,
    /// Free labels.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl<N: Node> Tool<N> for Create {
    const INFO: Info = Info {
        name: "workspace_create",
        title: "Create a workspace",
        about: "Makes a workspace, a walled Linux environment of its own, and starts it. Takes \
                well under a second for images that are here. Next: exec or file_write in it; \
                workspace_destroy when done.",
        operations: &["workspace.create"],
        effect: Effect::Adds,
        idempotent: false,
        open_world: false,
    };
    type Input = CreateInput;
    type Output = One;

    async fn run(call: Call<N>, input: CreateInput) -> Result<Reply<One>> {
        let request = CreateWorkspace {
            name: input.name.map(|name| name.parse()).transpose()?,
            image: input.image.map(|name| name.parse()).transpose()?,
            limits: input.limits.into(),
            nested: input.nested,
            env: input.env,
            ttl_ms: input.ttl_ms,
            idle_ms: input.idle_ms,
            command: input.command.map(background),
            labels: input.labels,
            ..CreateWorkspace::default()
        };
        let grant = call.on_server::<ops::WorkspaceCreate>().await?;
        let info = call.service.create_workspace(grant, request).await?;
        Ok(one("Made", &info))
    }
}

pub(crate) struct List;

/// A page of workspaces.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listed {
    /// Workspaces, oldest first.
    workspaces: Vec<WorkspaceView>,
    /// Give it as `cursor` for the next page. Absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl<N: Node> Tool<N> for List {
    const INFO: Info = Info {
        name: "workspace_list",
        title: "List workspaces",
        about: "Lists workspaces with their state and limits.",
        operations: &["workspace.list"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = Paged;
    type Output = Listed;

    async fn run(call: Call<N>, input: Paged) -> Result<Reply<Listed>> {
        let grant = call.on_server::<ops::WorkspaceList>().await?;
        let page = call.service.list_workspaces(grant, &input.into()).await?;
        let workspaces: Vec<_> = page.items.iter().map(WorkspaceView::from).collect();
        let mut text = count(workspaces.len(), "workspace");
        for one in &workspaces {
            let _infallible = write!(text, "\n{}", one.line());
        }
        if let Some(next) = &page.next {
            let _infallible = write!(text, "\nThere are more: cursor {next}");
        }
        Ok(Reply::new(text, Listed { workspaces, next: page.next }))
    }
}

pub(crate) struct Show;

/// A workspace and what it does now.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Shown {
    /// The workspace.
    workspace: WorkspaceView,
    /// What it uses now, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<Uses>,
    /// TCP ports that something listens on inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port>,
}

/// What a workspace uses.
#[derive(Debug, Serialize, JsonSchema)]
struct Uses {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<u64>,
    /// CPU time since it booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_usec: Option<u64>,
    /// Processes that the kernel killed for memory since it booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_kills: Option<u64>,
    /// Commands that run.
    execs: u64,
    /// Time since it booted.
    uptime_ms: u64,
}

impl From<WorkspaceStats> for Uses {
    fn from(stats: WorkspaceStats) -> Self {
        Self {
            memory_bytes: stats.memory_bytes,
            disk_bytes: stats.disk_bytes,
            pids: stats.pids,
            cpu_usec: stats.cpu_usec,
            oom_kills: stats.oom_kills,
            execs: stats.execs,
            uptime_ms: stats.uptime_ms,
        }
    }
}

/// A listening port.
#[derive(Debug, Serialize, JsonSchema)]
struct Port {
    port: u16,
    /// Address it listens on inside.
    address: String,
}

impl From<PortInfo> for Port {
    fn from(PortInfo { port, address }: PortInfo) -> Self {
        Self { port, address }
    }
}

impl<N: Node> Tool<N> for Show {
    const INFO: Info = Info {
        name: "workspace_info",
        title: "Show a workspace",
        about: "Shows a workspace: state, limits, what it uses now, and the TCP ports that \
                something listens on inside.",
        operations: &["workspace.read", "workspace.stats", "port.list"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = Workspace;
    type Output = Shown;

    fn needs(_arguments: &JsonObject) -> Vec<&'static str> {
        vec!["workspace.read"]
    }

    async fn run(call: Call<N>, Workspace { workspace }: Workspace) -> Result<Reply<Shown>> {
        let grant = call.on::<ops::WorkspaceRead>(&workspace).await?;
        let info = call.service.workspace(grant).await?;
        let (mut uses, mut ports) = (None, Vec::new());
        // A workspace that stopped just now, or a token without these rights, has none.
        if info.state.is_live() {
            if let Ok(grant) = call.on::<ops::WorkspaceStats>(&workspace).await {
                uses = call.service.workspace_stats(grant).await.ok().map(Uses::from);
            }
            if let Ok(grant) = call.on::<ops::PortList>(&workspace).await {
                let found = call.service.ports(grant).await.unwrap_or_default();
                ports = found.into_iter().map(Port::from).collect();
            }
        }
        let workspace = WorkspaceView::from(&info);
        let mut text = workspace.line();
        for (name, value) in &workspace.limits {
            let _infallible = write!(text, "\nlimit {name}: {value}");
        }
        if let Some(uses) = &uses {
            let known = |value: Option<u64>| value.map_or("unknown".into(), |n| n.to_string());
            let _infallible = write!(
                text,
                "\nuses now: memory {} bytes, disk {} bytes, {} processes; {} commands run",
                known(uses.memory_bytes),
                known(uses.disk_bytes),
                known(uses.pids),
                uses.execs
            );
        }
        for port in &ports {
            let _infallible = write!(text, "\nlistens: {}:{}", port.address, port.port);
        }
        Ok(Reply::new(text, Shown { workspace, uses, ports }))
    }
}

pub(crate) struct Update;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateInput {
    /// Name or id of the workspace.
    workspace: String,
    /// New name.
    name: Option<String>,
    /// New limits; those left out stay. Applied at once.
    #[serde(default)]
    limits: Limits,
    /// Destroy it this long after now; 0 removes the end.
    ttl_ms: Option<u64>,
    /// Destroy it after this long without use; 0 removes it.
    idle_ms: Option<u64>,
    /// Replaces all labels.
    labels: Option<BTreeMap<String, String>>,
}

impl<N: Node> Tool<N> for Update {
    const INFO: Info = Info {
        name: "workspace_update",
        title: "Change a workspace",
        about: "Renames a workspace, or changes its limits, lifetime or labels, at once.",
        operations: &["workspace.update"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = UpdateInput;
    type Output = One;

    async fn run(call: Call<N>, input: UpdateInput) -> Result<Reply<One>> {
        let change = UpdateWorkspace {
            name: input.name.map(|name| name.parse()).transpose()?,
            limits: input.limits.into(),
            ttl_ms: input.ttl_ms,
            idle_ms: input.idle_ms,
            labels: input.labels,
        };
        let grant = call.on::<ops::WorkspaceUpdate>(&input.workspace).await?;
        let info = call.service.update_workspace(grant, change).await?;
        Ok(one("Changed", &info))
    }
}

pub(crate) struct Control;

/// What to do with it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Boot it.
    Start,
    /// End its processes; its disk stays.
    Stop,
    /// Freeze its processes.
    Pause,
    /// Let frozen processes go on.
    Resume,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlInput {
    /// Name or id of the workspace.
    workspace: String,
    /// start boots it; stop ends its processes, its disk stays; pause freezes them; resume lets
    /// them go on.
    action: Action,
}

impl<N: Node> Tool<N> for Control {
    const INFO: Info = Info {
        name: "workspace_control",
        title: "Start, stop, pause or resume a workspace",
        about: "Starts, stops, pauses or resumes a workspace. Stopping ends all its processes; \
                its disk stays.",
        operations: &["workspace.start", "workspace.stop", "workspace.pause", "workspace.resume"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = ControlInput;
    type Output = One;

    fn needs(arguments: &JsonObject) -> Vec<&'static str> {
        match arguments.get("action").and_then(Value::as_str) {
            Some("start") => vec!["workspace.start"],
            Some("stop") => vec!["workspace.stop"],
            Some("pause") => vec!["workspace.pause"],
            Some("resume") => vec!["workspace.resume"],
            _ => Vec::new(),
        }
    }

    async fn run(call: Call<N>, input: ControlInput) -> Result<Reply<One>> {
        let (service, reference) = (&call.service, input.workspace.as_str());
        let (done, info) = match input.action {
            Action::Start => {
                let grant = call.on::<ops::WorkspaceStart>(reference).await?;
                ("Started", service.start_workspace(grant).await?)
            }
            Action::Stop => {
                let grant = call.on::<ops::WorkspaceStop>(reference).await?;
                ("Stopped", service.stop_workspace(grant).await?)
            }
            Action::Pause => {
                let grant = call.on::<ops::WorkspacePause>(reference).await?;
                ("Paused", service.pause_workspace(grant).await?)
            }
            Action::Resume => {
                let grant = call.on::<ops::WorkspaceResume>(reference).await?;
                ("Resumed", service.resume_workspace(grant).await?)
            }
        };
        Ok(one(done, &info))
    }
}

pub(crate) struct Destroy;

/// What was destroyed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Destroyed {
    /// As it was named.
    workspace: String,
    /// It is gone.
    destroyed: bool,
}

impl<N: Node> Tool<N> for Destroy {
    const INFO: Info = Info {
        name: "workspace_destroy",
        title: "Destroy a workspace",
        about: "Ends all processes of a workspace and removes it with its disk, for ever. Its \
                snapshots stay.",
        operations: &["workspace.destroy"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = Workspace;
    type Output = Destroyed;

    async fn run(call: Call<N>, Workspace { workspace }: Workspace) -> Result<Reply<Destroyed>> {
        let grant = call.on::<ops::WorkspaceDestroy>(&workspace).await?;
        call.service.destroy_workspace(grant).await?;
        let text = format!("{workspace} is gone");
        Ok(Reply::new(text, Destroyed { workspace, destroyed: true }))
    }
}

pub(crate) struct Logs;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogsInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Only what happened after this `seq`. Default: everything.
    after: Option<i64>,
    /// Most events, 1 to 1000, the latest of them. Default 50.
    limit: Option<usize>,
}

/// What happened to a workspace.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Happened {
    /// Oldest first.
    events: Vec<Event>,
    /// Last output of its start-up command.
    output: String,
    /// The start-up command of this boot, for exec_output.
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_id: Option<String>,
}

/// One thing that happened.
#[derive(Debug, Serialize, JsonSchema)]
struct Event {
    /// Its number; greater than every earlier one.
    seq: i64,
    /// When.
    at: String,
    /// What: an operation, or what the server did by itself.
    kind: String,
    /// By whom.
    principal: String,
    /// How it ended, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
}

impl<N: Node> Tool<N> for Logs {
    const INFO: Info = Info {
        name: "workspace_logs",
        title: "Show what happened to a workspace",
        about: "Shows what happened to a workspace, and the last output of its start-up command. \
                Output of other commands: exec_output.",
        operations: &["workspace.logs"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = LogsInput;
    type Output = Happened;

    async fn run(call: Call<N>, input: LogsInput) -> Result<Reply<Happened>> {
        let limit = input.limit.unwrap_or(50);
        if !(1..=1000).contains(&limit) {
            return Err(invalid("limit must be 1 to 1000"));
        }
        let grant = call.on::<ops::WorkspaceLogs>(&input.workspace).await?;
        let logs = call.service.workspace_logs(grant, LogsQuery { after: input.after }).await?;
        let from = logs.events.len().saturating_sub(limit);
        let events: Vec<_> = logs.events[from..]
            .iter()
            .map(|event| Event {
                seq: event.seq,
                at: event.at.to_string(),
                kind: event.kind.clone(),
                principal: event.principal.clone(),
                outcome: event.detail["outcome"].as_str().map(ToOwned::to_owned),
            })
            .collect();
        let mut output = Gather::new(usize::try_from(DEFAULT_OUTPUT_BYTES).unwrap_or(usize::MAX));
        output.push(logs.output.as_bytes());
        let output = output.finish().text;
        let mut text = String::new();
        for event in &events {
            let outcome = event.outcome.as_deref().unwrap_or_default();
            let _infallible = writeln!(text, "{} {} {outcome}", event.at, event.kind);
        }
        if !output.is_empty() {
            let _infallible = write!(text, "--- output of the start-up command\n{output}");
        }
        let exec_id = logs.exec_id.map(|id| id.to_string());
        Ok(Reply::new(text, Happened { events, output, exec_id }))
    }
}
