//! A command that is waited for.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use bytes::Bytes;
use pinfold_auth::ops;
use pinfold_control::{ExecEvent, ExecInput as _, ExecSession, Node};
use pinfold_types::{
    Error, ErrorCode, Result,
    exec::{Command, ExecResult, ExecSpec, ExitReason},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{invalid, output_limit};
use crate::{
    call::Call,
    cut::{Cut, Gather},
    limits::{DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS},
    progress::Progress,
    tool::{Effect, Info, Reply, Tool},
    uri,
};

/// How long a command may take to end after it was killed.
const KILLED: Duration = Duration::from_secs(5);
/// Bytes of a command's latest output in a progress notification.
const RECENT_BYTES: usize = 1500;

/// What to run, in one of two forms.
pub(crate) fn command(line: Option<String>, argv: Option<Vec<String>>) -> Result<Command> {
    match (line, argv) {
        (Some(line), None) => Ok(Command::Shell(line)),
        (None, Some(argv)) => Ok(Command::Argv(argv)),
        _ => Err(invalid("give either command or argv")),
    }
}

pub(crate) struct Exec;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecInput {
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
    /// Text for standard input. Without, it is empty.
    stdin: Option<String>,
    /// The whole process tree is killed after this long: 1 to 3600000, default 120000. For more use
    /// exec_start.
    timeout_ms: Option<u64>,
    /// Most bytes of each output stream that are returned, head and tail: 1 to 262144, default
    /// 30000.
    max_output_bytes: Option<u64>,
}

/// How a command ended and what it printed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ran {
    /// Handle, for exec_output.
    exec_id: String,
    /// exited, signaled, timed_out, out_of_memory, workspace_stopped or not_started.
    reason: String,
    /// Exit code as a shell gives it: 0 is success, 128 + N for signal N, 124 for the time limit,
    /// 126 and 127 for a program that cannot be started or found.
    exit_code: u8,
    /// Why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Limits of the workspace that were hit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits_hit: Vec<String>,
    duration_ms: u64,
    /// Standard output, within the limit.
    stdout: String,
    /// Standard error, within the limit.
    stderr: String,
    /// Bytes of standard output in all.
    stdout_bytes: u64,
    /// Bytes of standard error in all.
    stderr_bytes: u64,
    /// What was left out, and how to get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// Resource with the whole output, as far as it is held, when some was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_uri: Option<String>,
}

impl<N: Node> Tool<N> for Exec {
    const INFO: Info = Info {
        name: "exec",
        title: "Run a command",
        about: "Runs a command in a workspace, waits for its end and returns exit code, standard \
                output and standard error. A command that fails is a normal result: look at \
                exit_code. Output beyond max_output_bytes is left out of the middle. For servers \
                and anything long use exec_start.",
        operations: &["exec.run"],
        effect: Effect::Changes,
        idempotent: false,
        open_world: false,
    };
    type Input = ExecInput;
    type Output = Ran;

    async fn run(mut call: Call<N>, input: ExecInput) -> Result<Reply<Ran>> {
        let timeout_ms = input.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(invalid(format!("timeout_ms must be 1 to {MAX_TIMEOUT_MS}"))
                .hint("start a longer command with exec_start"));
        }
        let limit = output_limit(input.max_output_bytes)?;
        let spec = ExecSpec {
            command: command(input.command, input.argv)?,
            cwd: input.cwd,
            env: input.env,
            user: input.user,
            tty: None,
            stdin: input.stdin.is_some(),
            timeout_ms: Some(timeout_ms),
            background: false,
        };
        let grant = call.on::<ops::ExecRun>(&input.workspace).await?;
        let mut session = call.service.exec(grant, spec).await?;
        let start = session.start();
        let followed = follow(&mut call, &mut *session, input.stdin, limit).await?;
        let Followed { result, stdout, stderr } = followed;
        let mut notes = Vec::new();
        note(&mut notes, "standard output", &stdout);
        note(&mut notes, "standard error", &stderr);
        let output_uri = (stdout.left_out + stderr.left_out > 0).then(|| {
            notes.push(format!(
                "to see what was left out: exec_output with exec_id {} (both streams in order, the \
                 last 2 MiB are held), or send the output of a new run to a file",
                start.exec_id
            ));
            uri::output(&start.workspace.to_string(), &start.exec_id.to_string(), 0)
        });
        let ran = Ran {
            exec_id: start.exec_id.to_string(),
            reason: reason(result.reason).to_owned(),
            exit_code: result.shell_code(),
            error: result.error.as_ref().map(|error| error.message.clone()),
            limits_hit: result.limits_hit.iter().map(|kind| kind.field().to_owned()).collect(),
            duration_ms: result.duration_ms,
            stdout: stdout.text,
            stderr: stderr.text,
            stdout_bytes: result.stdout_bytes,
            stderr_bytes: result.stderr_bytes,
            notes,
            output_uri,
        };
        Ok(Reply::new(text(&ran), ran))
    }
}

pub(crate) const fn reason(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::Exited => "exited",
        ExitReason::Signaled => "signaled",
        ExitReason::TimedOut => "timed_out",
        ExitReason::OutOfMemory => "out_of_memory",
        ExitReason::WorkspaceStopped => "workspace_stopped",
        ExitReason::NotStarted => "not_started",
    }
}

fn note(notes: &mut Vec<String>, of: &str, cut: &Cut) {
    if cut.left_out > 0 {
        notes.push(format!("{} bytes of {of} are left out", cut.left_out));
    }
    if cut.lossy {
        notes.push(format!("{of} is not all UTF-8: other bytes are shown as \u{fffd}"));
    }
}

fn text(ran: &Ran) -> String {
    let mut text =
        format!("exit code {} ({}) after {} ms", ran.exit_code, ran.reason, ran.duration_ms);
    if let Some(error) = &ran.error {
        let _infallible = write!(text, "\n{error}");
    }
    for limit in &ran.limits_hit {
        let _infallible = write!(text, "\nlimit hit: {limit}");
    }
    for note in &ran.notes {
        let _infallible = write!(text, "\nnote: {note}");
    }
    for (name, output) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
        if !output.is_empty() {
            let _infallible = write!(text, "\n--- {name}\n{output}");
        }
    }
    text
}

struct Followed {
    result: ExecResult,
    stdout: Cut,
    stderr: Cut,
}

/// Carries a command to its end. A cancelled call kills it.
async fn follow<N: Node, S: ExecSession>(
    call: &mut Call<N>,
    session: &mut S,
    stdin: Option<String>,
    limit: usize,
) -> Result<Followed> {
    let (mut stdout, mut stderr) = (Gather::new(limit), Gather::new(limit));
    let mut recent = Vec::new();
    let mut ticks = Progress::ticks();
    let input = session.input();
    let feeder = stdin.map(|text| {
        let input = input.clone();
        // A command that does not read must not keep its output from being read.
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            // One that ended without reading it says so by its result.
            if input.write(Bytes::from(text)).await.is_ok() {
                let _ended = input.eof().await;
            }
        }))
    });
    let result = loop {
        tokio::select! {
            biased;
            () = call.cancelled.cancelled() => {
                drop(feeder);
                return Err(kill(session, &input).await);
            }
            event = session.next() => match event {
                Some(ExecEvent::Stdout(bytes)) => {
                    stdout.push(&bytes);
                    remember(&mut recent, &bytes);
                }
                Some(ExecEvent::Stderr(bytes)) => {
                    stderr.push(&bytes);
                    remember(&mut recent, &bytes);
                }
                Some(ExecEvent::Exited(result)) => break result,
                Some(ExecEvent::Failed(error)) => return Err(error),
                None => return Err(Error::internal("a command's stream ended without its result")),
            },
            _ = ticks.tick(), if call.progress.wanted() => {
                let message = if recent.is_empty() {
                    let bytes = stdout.total() + stderr.total();
                    let seconds = call.progress.elapsed().as_secs();
                    format!("running for {seconds} s, {bytes} bytes of output")
                } else {
                    String::from_utf8_lossy(&std::mem::take(&mut recent)).into_owned()
                };
                call.progress.say(&message).await;
            }
        }
    };
    drop(feeder);
    Ok(Followed { result, stdout: stdout.finish(), stderr: stderr.finish() })
}

fn remember(recent: &mut Vec<u8>, bytes: &[u8]) {
    recent.extend_from_slice(&bytes[bytes.len().saturating_sub(RECENT_BYTES)..]);
    let over = recent.len().saturating_sub(RECENT_BYTES);
    recent.drain(..over);
}

/// Kills the command and waits for its end, so that a cancelled call leaves nothing running.
async fn kill<S: ExecSession>(session: &mut S, input: &S::Input) -> Error {
    let _ended = input.signal(9).await;
    let end = async {
        while let Some(event) = session.next().await {
            if matches!(event, ExecEvent::Exited(_) | ExecEvent::Failed(_)) {
                break;
            }
        }
    };
    let _stuck = tokio::time::timeout(KILLED, end).await;
    Error::new(ErrorCode::Cancelled, "the call was cancelled and the command was killed")
}
