//! The `pinfold` program: parse, compose, exit code.
//!
//! A client command touches no configuration, no thread pool and no logging: it opens the
//! server's socket, asks, prints. `up` composes the server.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod home;
mod output;
mod private;
mod server;
mod session;
mod terminal;
mod tls;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error)),
    };
    ExitCode::from(match cli.command {
        Command::Up(up) => server::up(&cli.global, &up),
        _ => commands::run(cli),
    })
}

/// Shows help, the version, or what is wrong with what was typed.
fn usage(error: &clap::Error) -> u8 {
    let _gone = error.print();
    if !error.use_stderr() {
        return 0;
    }
    // `run` and its kin leave 1 to 124 to the command inside.
    let passes = std::env::args_os()
        .skip(1)
        .find(|word| !word.as_encoded_bytes().starts_with(b"-"))
        .is_some_and(|word| ["run", "exec", "shell", "attach"].iter().any(|name| word == *name));
    if passes { commands::OWN_FAILURE } else { 2 }
}
