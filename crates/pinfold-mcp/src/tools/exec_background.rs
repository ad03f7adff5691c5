//! Commands in the background.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use bytes::Bytes;
use pinfold_auth::ops;
use pinfold_control::{ExecEvent, ExecSession, Node};
use pinfold_types::{
    Error, ErrorCode, ExecId, Result,
    api::SignalExec,
    exec::{Command, ExecInfo, ExecResult, ExecSpec},
    name::excerpt,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Workspace, count,
    exec::{command, reason},
    invalid, output_limit,
};
use crate::{
    call::Call,
    cut::whole,
    limits::MAX_WAIT_MS,
    progress::Progress,
    tool::{Effect, Info, Reply, Tool},
};

/// Output that is there already arrives within this after joining.
const QUIET: Duration = Duration::from_millis(100);

/// A command.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CommandView {
    /// Handle, for exec_output and exec_kill.
    exec_id: String,
    /// What runs.
    command: String,
    /// It has not ended.
    running: bool,
    /// exited, signaled, timed_out, …, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Exit code as a shell gives it, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    /// It was started in the background.
    background: bool,
    /// Process id inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    started_at: String,
}

impl From<&ExecInfo> for CommandView {
    fn from(info: &ExecInfo) -> Self {
        let command = match &info.command {
            Command::Shell(line) => line.clone(),
            Command::Argv(argv) => argv.join(" "),
        };
        Self {
            exec_id: info.id.to_string(),
            command: excerpt(&command),
            running: info.result.is_none(),
            reason: info.result.as_ref().map(|result| reason(result.reason).to_owned()),
            exit_code: info.result.as_ref().map(ExecResult::shell_code),
            background: info.background,
            pid: info.pid,
            started_at: info.started_at.to_string(),
        }
    }
}

impl CommandView {
    fn line(&self) -> String {
        let state = match (&self.reason, self.exit_code) {
            (Some(reason), Some(code)) => format!("{reason}, exit code {code}"),
            _ => "running".into(),
        };
        format!("{} {state}: {}", self.exec_id, self.command)
    }
}

pub(crate) struct Start;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartInput {
    /// Name or id of the workspace.
    workspace: String,
    /// A line for /bin/sh -c. Give this or `argv`.
    command: Option<String>,
    /// Program and arguments, without a shell. Give this or `command`.
    argv: Option<Vec<String>>,
    /// Directory inside; must exist. Default: the image's, else the user's home.
    cwd: Option<String>,
    /// Added to the workspace's environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// User name or number inside. Default root.
    user: Option<String>,
    /// The whole process tree is killed after this long. Default: never.
    timeout_ms: Option<u64>,
}

/// A command that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Started {
    /// The command.
    command: CommandView,
}

impl<N: Node> Tool<N> for Start {
    const INFO: Info = Info {
        name: "exec_start",
        title: "Start a command in the background",
        about: "Starts a command in the background and returns at once. Next: exec_output with \
                its exec_id and wait_ms to follow it, exec_kill to end it. The last 2 MiB of \
                output are held.",
        operations: &["exec.start"],
        effect: Effect::Changes,
        idempotent: false,
        open_world: false,
    };
    type Input = StartInput;
    type Output = Started;

    async fn run(call: Call<N>, input: StartInput) -> Result<Reply<Started>> {
        let spec = ExecSpec {
            command: command(input.command, input.argv)?,
            cwd: input.cwd,
            env: input.env,
            user: input.user,
            tty: None,
            stdin: false,
            timeout_ms: input.timeout_ms,
            background: true,
        };
        let grant = call.on::<ops::ExecStart>(&input.workspace).await?;
        let command = CommandView::from(&call.service.start_exec(grant, spec).await?);
        Ok(Reply::new(format!("Started {}", command.line()), Started { command }))
    }
}

pub(crate) struct List;

/// Commands of a workspace.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listed {
    /// Oldest first.
    commands: Vec<CommandView>,
}

impl<N: Node> Tool<N> for List {
    const INFO: Info = Info {
        name: "exec_list",
        title: "List commands",
        about: "Lists the commands that run in a workspace, and the last ones that ended.",
        operations: &["exec.list"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = Workspace;
    type Output = Listed;

    async fn run(call: Call<N>, Workspace { workspace }: Workspace) -> Result<Reply<Listed>> {
        let grant = call.on::<ops::ExecList>(&workspace).await?;
        let found = call.service.execs(grant).await?;
        let commands: Vec<_> = found.iter().map(CommandView::from).collect();
        let mut text = count(commands.len(), "command");
        for command in &commands {
            let _infallible = write!(text, "\n{}", command.line());
        }
        Ok(Reply::new(text, Listed { commands }))
    }
}

pub(crate) struct Kill;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KillInput {
    /// Name or id of the workspace.
    workspace: String,
    /// From exec_start or exec_list.
    exec_id: String,
    /// Number of the signal for its process group: 15 asks it to end (default), 9 kills, 2
    /// interrupts.
    signal: Option<i32>,
}

/// What was sent.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Signalled {
    exec_id: String,
    signal: i32,
}

impl<N: Node> Tool<N> for Kill {
    const INFO: Info = Info {
        name: "exec_kill",
        title: "Signal a command",
        about: "Sends a signal to a command and its process group. Next: exec_output to see how \
                it ended.",
        operations: &["exec.signal"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = KillInput;
    type Output = Signalled;

    async fn run(call: Call<N>, input: KillInput) -> Result<Reply<Signalled>> {
        let exec: ExecId = input.exec_id.parse()?;
        let signal = input.signal.unwrap_or(15);
        let grant = call.on::<ops::ExecSignal>(&input.workspace).await?;
        call.service.signal_exec(grant, exec, &SignalExec { signal }).await?;
        let text = format!("Sent signal {signal} to {exec}");
        Ok(Reply::new(text, Signalled { exec_id: input.exec_id, signal }))
    }
}

pub(crate) struct Output;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputInput {
    /// Name or id of the workspace.
    workspace: String,
    /// From exec_start, exec or exec_list.
    exec_id: String,
    /// Offset of the first byte wanted: `next` of the call before. Default 0, the beginning.
    from: Option<u64>,
    /// Wait up to this long for output that is not there yet: 0 to 600000. Default 0.
    wait_ms: Option<u64>,
    /// With wait_ms: wait for the end of the command, or until max_output_bytes are there.
    #[serde(default)]
    until_end: bool,
    /// Most bytes returned: 1 to 262144, default 30000.
    max_output_bytes: Option<u64>,
}

/// A part of a command's output.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Part {
    /// Standard output and standard error in the order they were written.
    output: String,
    /// Offset of the first byte of `output`.
    from: u64,
    /// Give it as `from` to go on.
    next: u64,
    /// Bytes before `from` that are no longer held.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_bytes: Option<u64>,
    /// Some bytes were not UTF-8 and are shown as U+FFFD.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lossy: bool,
    /// There is, or may come, more after `next`.
    more: bool,
    /// The command.
    command: CommandView,
}

impl<N: Node> Tool<N> for Output {
    const INFO: Info = Info {
        name: "exec_output",
        title: "Read a command's output",
        about: "Returns the output of a command from an offset on, and whether it has ended. With \
                wait_ms it waits for new output; with until_end for the command's end. Next: the \
                same again with from = next.",
        operations: &["exec.list", "exec.attach"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = OutputInput;
    type Output = Part;

    async fn run(mut call: Call<N>, input: OutputInput) -> Result<Reply<Part>> {
        let exec: ExecId = input.exec_id.parse()?;
        let limit = output_limit(input.max_output_bytes)?;
        let wait = input.wait_ms.unwrap_or(0);
        if wait > MAX_WAIT_MS {
            return Err(invalid(format!("wait_ms must be 0 to {MAX_WAIT_MS}")));
        }
        let info = find(&call, &input.workspace, exec).await?;
        let mut command = CommandView::from(&info);
        let grant = call.on::<ops::ExecAttach>(&input.workspace).await?;
        let asked = input.from.unwrap_or(0);
        let mut session = call.service.attach(grant, exec, Some(asked), true).await?;
        let start = session.start();
        let wanted = Wanted { limit, wait: Duration::from_millis(wait), end: input.until_end };
        let Taken { mut bytes, result } = take(&mut call, &mut *session, &wanted).await?;
        drop(session);
        if let Some(result) = &result {
            command.running = false;
            command.reason = Some(reason(result.reason).to_owned());
            command.exit_code = Some(result.shell_code());
        }
        let more = result.is_none();
        if more {
            // The rest of the last character comes with the next part, unless nothing else is there.
            let cut = whole(&bytes);
            bytes.truncate(if cut == 0 { bytes.len() } else { cut });
        }
        let output = String::from_utf8_lossy(&bytes);
        let lossy = matches!(output, std::borrow::Cow::Owned(_));
        let part = Part {
            from: start.offset,
            next: start.offset + bytes.len() as u64,
            lost_bytes: Some(start.lost_bytes).filter(|lost| *lost > 0),
            lossy,
            more,
            output: output.into_owned(),
            command,
        };
        let mut text = part.command.line();
        if let Some(lost) = part.lost_bytes {
            let _infallible = write!(text, "\nnote: {lost} earlier bytes are no longer held");
        }
        if part.more {
            let _infallible = write!(text, "\nmore: from {}", part.next);
        }
        let _infallible = write!(text, "\n--- output from {}\n{}", part.from, part.output);
        Ok(Reply::new(text, part))
    }
}

/// The command, when its output may be read from the side: one in the foreground that still runs
/// keeps the pace of its own reader.
pub(crate) async fn find<N: Node>(
    call: &Call<N>,
    workspace: &str,
    exec: ExecId,
) -> Result<ExecInfo> {
    let grant = call.on::<ops::ExecList>(workspace).await?;
    let found = call.service.execs(grant).await?.into_iter().find(|info| info.id == exec);
    let info = found.ok_or_else(|| {
        Error::not_found("command", exec).hint("the last 64 commands that ended are remembered")
    })?;
    if info.result.is_none() && !info.background {
        return Err(Error::new(
            ErrorCode::Conflict,
            format!("{exec} runs in the foreground of another call"),
        )
        .hint("wait for that call, or start commands with exec_start"));
    }
    Ok(info)
}

struct Wanted {
    limit: usize,
    wait: Duration,
    /// Wait for the end rather than for anything.
    end: bool,
}

struct Taken {
    bytes: Vec<u8>,
    result: Option<ExecResult>,
}

async fn take<N: Node, S: ExecSession>(
    call: &mut Call<N>,
    session: &mut S,
    wanted: &Wanted,
) -> Result<Taken> {
    let mut bytes = Vec::new();
    let deadline = tokio::time::Instant::now() + wanted.wait;
    let mut ticks = Progress::ticks();
    loop {
        // What is there already is taken whatever the wait.
        let quiet = tokio::time::Instant::now() + QUIET;
        let until = if bytes.is_empty() || wanted.end { deadline.max(quiet) } else { quiet };
        tokio::select! {
            biased;
            () = call.cancelled.cancelled() => {
                return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
            }
            event = session.next() => match event {
                Some(ExecEvent::Stdout(more) | ExecEvent::Stderr(more)) => {
                    let room = wanted.limit - bytes.len();
                    bytes.extend_from_slice(&more[..room.min(more.len())]);
                    if more.len() > room || bytes.len() == wanted.limit {
                        return Ok(Taken { bytes, result: None });
                    }
                }
                Some(ExecEvent::Exited(result)) => {
                    return Ok(Taken { bytes, result: Some(result) });
                }
                Some(ExecEvent::Failed(error)) => return Err(error),
                None => return Err(Error::internal("a stream ended without a result")),
            },
            () = tokio::time::sleep_until(until) => return Ok(Taken { bytes, result: None }),
            _ = ticks.tick(), if call.progress.wanted() => {
                let waiting = format!("{} bytes so far", bytes.len());
                call.progress.say(&waiting).await;
            }
        }
    }
}

/// Everything of a command's output that is held, from an offset on, at most `limit` bytes.
pub(crate) async fn held<N: Node>(
    call: &mut Call<N>,
    workspace: &str,
    exec: ExecId,
    from: u64,
    limit: usize,
) -> Result<Bytes> {
    find(call, workspace, exec).await?;
    let grant = call.on::<ops::ExecAttach>(workspace).await?;
    let mut session = call.service.attach(grant, exec, Some(from), true).await?;
    let wanted = Wanted { limit, wait: Duration::ZERO, end: false };
    Ok(take(call, &mut *session, &wanted).await?.bytes.into())
}
