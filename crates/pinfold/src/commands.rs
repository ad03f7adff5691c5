//! What each command does: ask the server, show the answer.

mod access;
mod archive;
mod attack;
mod audit;
mod backup;
mod ca;
mod completions;
mod copy;
mod down;
mod exec;
mod fork;
mod image;
mod login;
mod mcp;
mod ports;
mod snapshot;
mod tools;
mod workspace;

use std::io::IsTerminal;

use pinfold_types::{Error, ErrorCode, Result};

use crate::{
    args::{Cli, Command, values::WorkspaceRef},
    client::{Client, Remote},
    home::Home,
    output::{BROKEN_PIPE, Output},
};

/// Exit code of `run`, `exec`, `shell` and `attach` when Pinfold itself failed.
pub(crate) const OWN_FAILURE: u8 = 125;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) client: Client,
    pub(crate) output: Output,
}

/// Runs a client command on a runtime of one thread and gives its exit code.
pub(crate) fn run(cli: Cli) -> u8 {
    let output = Output::new(cli.global.json, cli.global.quiet);
    let own = cli.command.passes_exit_code();
    let result = Home::find(cli.global.home.as_deref()).and_then(|home| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::internal)?;
        let remote = Remote::find(&cli.global)?;
        if let Some(word) = cli.command.local_only()
            && remote.is_some()
        {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("`pinfold {word}` is about this machine, and --server names another"),
            )
            .hint("leave --server out, and unset PINFOLD_SERVER"));
        }
        let client = Client::new(home.clone(), remote);
        let context = Context { home, client, output };
        let result = runtime.block_on(dispatch(&context, cli.command));
        // Threads that wait for the terminal end with the process.
        runtime.shutdown_background();
        Ok((result, context.output))
    });
    match result {
        Err(error) => {
            Output::new(cli.global.json, cli.global.quiet).error(&error);
            if own { OWN_FAILURE } else { error.code.exit_code() }
        }
        Ok((_, output)) if output.closed() => BROKEN_PIPE,
        Ok((Ok(code), _)) => code,
        Ok((Err(error), output)) => {
            output.error(&error);
            if own { OWN_FAILURE } else { error.code.exit_code() }
        }
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<u8> {
    match command {
        Command::Run(args) => exec::run(context, args).await,
        Command::Exec(args) => exec::exec(context, args).await,
        Command::Shell(args) => exec::shell(context, args).await,
        Command::Attach(args) => exec::attach(context, args).await,
        Command::Ps(args) => done(exec::ps(context, &args).await),
        Command::Kill(args) => done(exec::kill(context, &args).await),

        Command::Create(args) => done(workspace::create(context, args).await),
        Command::Ls(args) => workspace::ls(context, &args).await,
        Command::Info(args) => workspace::info(context, &args).await,
        Command::Start(args) => workspace::act(context, &args.workspaces, "start").await,
        Command::Stop(args) => workspace::act(context, &args.workspaces, "stop").await,
        Command::Pause(args) => workspace::act(context, &args.workspaces, "pause").await,
        Command::Resume(args) => workspace::act(context, &args.workspaces, "resume").await,
        Command::Rm(args) => workspace::rm(context, &args).await,
        Command::Rename(args) => done(workspace::rename(context, args).await),
        Command::Set(args) => done(workspace::set(context, args).await),
        Command::Stats(args) => workspace::stats(context, &args).await,
        Command::Logs(args) => done(workspace::logs(context, &args).await),

        Command::Cp(args) => done(copy::cp(context, args).await),
        Command::Ports(args) => done(ports::ports(context, args).await),
        Command::Snapshot(args) => snapshot::snapshot(context, args).await,
        Command::Fork(args) => fork::fork(context, args).await,
        Command::Image(args) => image::image(context, args).await,

        Command::Token(args) => access::token(context, args).await,
        Command::Session(args) => done(access::session(context, args).await),
        Command::Audit(args) => done(audit::audit(context, args).await),
        Command::Login(args) => done(login::login(context, &args).await),
        Command::Logout => done(login::logout(context).await),
        Command::Whoami => done(access::who_am_i(context).await),
        Command::Mcp => mcp::mcp(context).await,

        Command::Backup(args) => done(backup::backup(context, args).await),
        Command::Down(args) => done(down::down(context, &args).await),
        Command::Doctor(args) => tools::doctor(context, &args).await,
        Command::Ca(args) => done(ca::ca(context, &args)),
        Command::Config(args) => done(tools::config(context, &args)),
        Command::Version => done(tools::version(context).await),
        Command::Completions(args) => done(completions::completions(context, &args)),
        Command::Man(args) => done(tools::man(context, &args)),
        Command::Openapi(args) => done(tools::openapi(context, &args)),
        Command::Names(args) => done(completions::names(context, &args).await),
        Command::Up(_) => Err(Error::internal("the server is not a client command")),
    }
}

/// How long a first command may be silent.
const SILENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// Says what takes long, should it: the first look at this machine's own programs, which makes
/// the image `host` of a fresh home. Ends with the guard that it gives.
fn explain_first(
    context: &Context,
    image: Option<&pinfold_types::ImageName>,
    tty: bool,
) -> Option<tokio_util::task::AbortOnDropHandle<()>> {
    let records = context.home.image_records();
    let none = move || std::fs::read_dir(&records).map_or(true, |mut found| found.next().is_none());
    // A file or a pipe is to hold what the command said, and nothing else.
    let wanted = std::io::stderr().is_terminal()
        && !context.output.quiet()
        && !context.output.json()
        && !context.client.is_remote()
        && image.is_none_or(|name| name.as_str() == "host")
        && none();
    wanted.then(|| {
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(SILENCE).await;
            if none() {
                let eol = if tty { "\r" } else { "" };
                Output::new(false, false)
                    .note(format!("pinfold: preparing the image host, once{eol}"));
            }
        }))
    })
}

fn done(result: Result<()>) -> Result<u8> {
    result.map(|()| 0)
}

/// The route of a workspace.
fn workspace_path(workspace: &WorkspaceRef, rest: &str) -> String {
    format!("/api/v1/workspaces/{workspace}{rest}")
}

/// Keeps going over several objects: prints each error, and gives the first one's exit code.
#[derive(Debug, Default)]
struct Several(u8);

impl Several {
    fn note(&mut self, output: &Output, error: &Error) {
        output.error(error);
        if self.0 == 0 {
            self.0 = error.code.exit_code();
        }
    }
}
