//! `run`, `exec`, `shell`, `attach`, `ps`, `kill`.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use http::Method;
use pinfold_types::{
    Error, ExecId, Result,
    api::{RunRequest, SignalExec},
    exec::{Command, ExecInfo, ExecResult, ExecSpec, ExitReason},
    limits::LimitKind,
};
use serde_json::Value;

use super::{Context, OWN_FAILURE, workspace, workspace_path};
use crate::{
    args::{
        exec::{Attach, Exec, Kill, Place, Run, Shell, Streams},
        values::{EnvVar, WorkspaceRef},
        workspace::One,
    },
    client::query,
    output::{
        BROKEN_PIPE, human,
        table::{Cell, Table},
    },
    session::{End, Session, Stdin},
    terminal::{self, Raw},
};

/// Bash where there is one, as a login shell would be; else sh.
const DEFAULT_SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash -i; fi; exec sh -i";

pub(super) async fn run(context: &Context, args: Run) -> Result<u8> {
    let both = io::stdin().is_terminal() && io::stdout().is_terminal();
    let tty = args.streams.tty || (both && !args.streams.no_stdin && !context.output.json());
    let stdin = stdin(&args.streams, tty)?;
    let image = args.new.image.clone();
    let _explained = super::explain_first(context, image.as_ref(), tty);
    let mut request = RunRequest { workspace: workspace::request(args.new)?, exec: None };
    let mut spec = ExecSpec::argv(args.command);
    fill(&mut spec, args.place, Vec::new(), tty, stdin);
    spec.timeout_ms = args.timeout.map(|time| time.0);
    if !matches!(&spec.command, Command::Argv(words) if words.is_empty()) {
        spec.check()?;
        request.exec = Some(spec);
    } else if tty || stdin == Stdin::Open || spec.timeout_ms.is_some() {
        return shape_image_command(context, request, spec, tty, stdin).await;
    }
    stream(context, "/api/v1/run", Some(json(&request)?), tty && request.exec.is_some(), stdin)
        .await
}

/// The image's own command, but with our streams: its words are asked for first.
async fn shape_image_command(
    context: &Context,
    mut request: RunRequest,
    mut spec: ExecSpec,
    tty: bool,
    stdin: Stdin,
) -> Result<u8> {
    let name = request.workspace.image.as_ref().map_or("host", |name| name.as_str());
    let path = format!("/api/v1/images/{}", crate::client::encode_segment(name));
    let image: pinfold_types::image::ImageInfo = context.client.get(&path).await?;
    if image.defaults.command.is_empty() {
        return Err(Error::new(
            pinfold_types::ErrorCode::InvalidArgument,
            format!("no command was given, and the image {name} brings none"),
        )
        .hint("write it after --, such as: pinfold run -- uname -a"));
    }
    spec.command = Command::Argv(image.defaults.command);
    request.exec = Some(spec);
    stream(context, "/api/v1/run", Some(json(&request)?), tty, stdin).await
}

pub(super) async fn exec(context: &Context, args: Exec) -> Result<u8> {
    let tty = args.streams.tty;
    let mut spec = if args.shell {
        let [line] = args.command.as_slice() else {
            return Err(Error::new(
                pinfold_types::ErrorCode::InvalidArgument,
                "--shell takes the whole line as one word",
            )
            .hint("quote it: pinfold exec WORKSPACE -c 'make && make test'"));
        };
        let mut spec = ExecSpec::argv(["sh"]);
        spec.command = Command::Shell(line.clone());
        spec
    } else {
        ExecSpec::argv(args.command)
    };
    let stdin = if args.background { Stdin::Closed } else { stdin(&args.streams, tty)? };
    fill(&mut spec, args.place, args.env, tty, stdin);
    spec.timeout_ms = args.timeout.map(|time| time.0);
    spec.background = args.background;
    spec.check()?;
    if args.background {
        let path = workspace_path(&args.workspace, "/execs");
        let started: Value = context.client.send(Method::POST, &path, &spec).await?;
        context.output.show(&started, |started| {
            let id = started.get("id").or_else(|| started.get("exec_id"));
            format!("{}\n", id.and_then(Value::as_str).unwrap_or_default())
        })?;
        return Ok(0);
    }
    let path = workspace_path(&args.workspace, "/exec");
    stream(context, &path, Some(json(&spec)?), tty, stdin).await
}

pub(super) async fn shell(context: &Context, args: Shell) -> Result<u8> {
    let tty = io::stdin().is_terminal();
    let mut spec = if args.command.is_empty() {
        let mut spec = ExecSpec::argv(["sh"]);
        spec.command = Command::Shell(DEFAULT_SHELL.to_owned());
        spec
    } else {
        ExecSpec::argv(args.command)
    };
    fill(&mut spec, args.place, args.env, tty, Stdin::Open);
    if !tty && matches!(&spec.command, Command::Shell(_)) {
        // A script on standard input: no prompt, as `ssh host < script`.
        spec.command = Command::Argv(vec!["/bin/sh".into()]);
    }
    spec.check()?;
    let path = workspace_path(&args.workspace, "/exec");
    stream(context, &path, Some(json(&spec)?), tty, Stdin::Open).await
}

pub(super) async fn attach(context: &Context, args: Attach) -> Result<u8> {
    let from = args.from.unwrap_or(0).to_string();
    let path = workspace_path(&args.workspace, "/execs");
    let execs: Vec<ExecInfo> = context.client.get(&path).await?;
    let found = execs.into_iter().find(|info| info.id == args.exec.0);
    let tty = found.is_some_and(|info| info.tty && info.result.is_none())
        && args.interactive
        && io::stdin().is_terminal();
    let stdin = if args.interactive { Stdin::Open } else { Stdin::Closed };
    let rest = format!("/execs/{}/attach{}", args.exec.0, query(&[("from", &from)]));
    stream(context, &workspace_path(&args.workspace, &rest), None, tty, stdin).await
}

/// What a command says from an offset of its output on, until it ends.
pub(super) async fn follow(
    context: &Context,
    workspace: &WorkspaceRef,
    exec: ExecId,
    from: u64,
) -> Result<u8> {
    let rest = format!("/execs/{exec}/attach{}", query(&[("from", &from.to_string())]));
    stream(context, &workspace_path(workspace, &rest), None, false, Stdin::Closed).await
}

pub(super) async fn ps(context: &Context, args: &One) -> Result<()> {
    let execs: Vec<ExecInfo> =
        context.client.get(&workspace_path(&args.workspace, "/execs")).await?;
    context.output.show(&execs, |execs| {
        let headings = &["ID", "PID", "STARTED", "STATE", "COMMAND"];
        let mut table = Table::new(context.output.color(), headings);
        for info in execs {
            let state = match &info.result {
                None if info.background => "background".to_owned(),
                None => "running".to_owned(),
                Some(result) => format!("ended {}", result.shell_code()),
            };
            let command = match &info.command {
                Command::Argv(words) => words.join(" "),
                Command::Shell(line) => line.clone(),
            };
            let short: String = command.chars().take(60).collect();
            table.row([
                Cell::from(info.id.to_string()),
                info.pid.map_or("-".to_owned(), |pid| pid.to_string()).into(),
                human::age(info.started_at).into(),
                state.into(),
                short.into(),
            ]);
        }
        table.render()
    })
}

pub(super) async fn kill(context: &Context, args: &Kill) -> Result<()> {
    let path = workspace_path(&args.workspace, &format!("/execs/{}/signal", args.exec.0));
    let body = SignalExec { signal: args.signal };
    context.client.send::<Value>(Method::POST, &path, &body).await.map(|_| ())
}

/// Whether standard input is passed on: when asked for, with a terminal of its own, or when ours
/// is neither a terminal nor empty.
fn stdin(streams: &Streams, tty: bool) -> Result<Stdin> {
    if tty && !io::stdin().is_terminal() {
        return Err(Error::new(
            pinfold_types::ErrorCode::InvalidArgument,
            "--tty needs a terminal on standard input",
        )
        .hint("leave --tty out, or run it under script(1)"));
    }
    let wanted = streams.interactive || tty || !(io::stdin().is_terminal() || is_null());
    Ok(if wanted && !streams.no_stdin { Stdin::Open } else { Stdin::Closed })
}

/// Whether standard input is /dev/null, device 1:3.
fn is_null() -> bool {
    rustix::fs::fstat(io::stdin().as_fd()).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
            && rustix::fs::major(stat.st_rdev) == 1
            && rustix::fs::minor(stat.st_rdev) == 3
    })
}

fn fill(spec: &mut ExecSpec, place: Place, env: Vec<EnvVar>, tty: bool, stdin: Stdin) {
    spec.cwd = place.workdir;
    spec.user = place.user;
    spec.env = env.into_iter().map(|EnvVar(name, value)| (name, value)).collect();
    spec.stdin = stdin == Stdin::Open;
    if tty {
        spec.tty = Some(terminal::size());
        if let Ok(term) = std::env::var("TERM") {
            spec.env.entry("TERM".into()).or_insert(term);
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

async fn stream(
    context: &Context,
    path: &str,
    first: Option<String>,
    tty: bool,
    stdin: Stdin,
) -> Result<u8> {
    let raw = if tty { Some(Raw::enter()?) } else { None };
    let session = Session::new(&context.client, &context.output, tty);
    let end = session.run(path, first, stdin).await;
    drop(raw);
    match end? {
        End::Exited(result) => finish(context, &result),
        End::Signal(signal) => Ok(u8::try_from(128 + signal).unwrap_or(OWN_FAILURE)),
        End::OutputClosed => Ok(BROKEN_PIPE),
        End::Detached => {
            context.output.note("pinfold: detached");
            Ok(OWN_FAILURE)
        }
    }
}

/// Says what is not to be seen from the exit code alone, and gives it.
fn finish(context: &Context, result: &ExecResult) -> Result<u8> {
    if context.output.json() {
        let line = json(result)?;
        let _gone = std::io::Write::write_all(&mut io::stderr(), format!("{line}\n").as_bytes());
        return Ok(result.shell_code());
    }
    match result.reason {
        ExitReason::OutOfMemory => context.output.note("pinfold: killed: out of memory"),
        ExitReason::TimedOut => context.output.note("pinfold: killed: its time limit was reached"),
        ExitReason::WorkspaceStopped => context.output.note("pinfold: the workspace stopped"),
        ExitReason::NotStarted => {
            let reason = result.error.clone();
            context.output.error(&reason.unwrap_or_else(|| Error::internal("no reason was given")));
        }
        ExitReason::Exited | ExitReason::Signaled => {}
    }
    for kind in &result.limits_hit {
        match kind {
            LimitKind::Pids => context.output.note("pinfold: the limit of processes was reached"),
            LimitKind::Disk => context.output.note("pinfold: the disk is full"),
            LimitKind::Inodes => context.output.note("pinfold: the disk has no inodes left"),
            LimitKind::Memory if result.reason != ExitReason::OutOfMemory => {
                context.output.note("pinfold: something was killed: out of memory");
            }
            _ => {}
        }
    }
    Ok(result.shell_code())
}
