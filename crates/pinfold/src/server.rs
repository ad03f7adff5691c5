//! `pinfold up`: one server for one home.

mod compose;
mod embed;
mod inside;
mod keys;
mod lock;
mod notify;
mod prepare;

pub(crate) use embed::program;
pub(crate) use lock::{Running, Serving};

use std::io::{self, Write};

use pinfold_types::{Error, ErrorCode, Result, config::Config};

use crate::{
    args::{Global, server::Up},
    client::READY_LINE,
    home::Home,
    output::Output,
};

/// Runs the server until it is told to leave, and gives the exit code.
pub(crate) fn up(global: &Global, args: &Up) -> u8 {
    if args.on_demand {
        // A session of its own: neither the terminal's end nor its signals are ours. It fails
        // only for a process that leads a group already, which a child just started does not.
        let _led = rustix::process::setsid();
    }
    let output = Output::new(global.json, global.quiet);
    let home = match Home::find(global.home.as_deref()) {
        Ok(home) => home,
        Err(error) => return failed(&output, args, &error),
    };
    match compose::run(&home, args, &output) {
        Ok(()) => 0,
        Err(error) => failed(&output, args, &error),
    }
}

/// A server that a command started reports on the pipe to that command; its log has it too.
fn failed(output: &Output, args: &Up, error: &Error) -> u8 {
    if args.on_demand {
        let line = serde_json::to_string(error).unwrap_or_default();
        let _gone = writeln!(io::stdout(), "{line}");
    }
    output.error(error);
    error.code.exit_code()
}

/// Tells whoever waits that the socket answers: the command that started us, or systemd.
fn ready(args: &Up) {
    if args.on_demand {
        let mut out = io::stdout();
        let _gone = writeln!(out, "{READY_LINE}").and_then(|()| out.flush());
        // Nobody reads what comes later; the pipe must not stay open either.
        if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
            let _kept = rustix::stdio::dup2_stdout(&null);
        }
    }
    notify::send("READY=1");
}

/// The configuration of a home; its defaults when there is no file.
pub(crate) fn config(home: &Home) -> Result<Config> {
    let path = home.config();
    let name =
        |error: Error| Error { message: format!("{}: {}", path.display(), error.message), ..error };
    match std::fs::read_to_string(&path) {
        Ok(text) => Config::parse(&text).map_err(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("{} cannot be read: {error}", path.display()),
        )),
    }
}
