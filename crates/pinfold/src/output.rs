//! What people and programs read: tables, JSON, notes, errors, progress.

pub(crate) mod escape;
pub(crate) mod human;
pub(crate) mod progress;
pub(crate) mod table;

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
};

use pinfold_api::Problem;
use pinfold_types::{Error, ErrorCode, Result};
use serde::Serialize;

/// Exit code of a program whose reader went away: 128 + SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// One of our streams takes no more, and not because its reader left.
pub(crate) fn unwritable(stream: &str, error: &io::Error) -> Error {
    Error::new(ErrorCode::Internal, format!("{stream} cannot be written: {error}"))
}

/// Where commands print.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    color: bool,
    closed: Cell<bool>,
}

impl Output {
    /// Colours only on a terminal and without `NO_COLOR` (no-color.org).
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = !plain && !json && io::stdout().is_terminal();
        Self { json, quiet, color, closed: Cell::new(false) }
    }

    /// Whether programs read this.
    pub(crate) const fn json(&self) -> bool {
        self.json
    }

    /// Whether notes and progress are unwanted.
    pub(crate) const fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether colours are wanted on standard output.
    pub(crate) const fn color(&self) -> bool {
        self.color
    }

    /// Whether whoever read our output has gone.
    pub(crate) fn closed(&self) -> bool {
        self.closed.get()
    }

    /// Prints text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: impl std::fmt::Display) -> Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes and hands them to the kernel at once.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| self.failed(&error))
    }

    /// Prints one JSON value, indented for people who look.
    pub(crate) fn value(&self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).map_err(Error::internal)?;
        text.push('\n');
        self.text(&text)
    }

    /// JSON where asked for, else the text that `human` makes.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        if self.json { self.value(value) } else { self.text(&human(value)) }
    }

    /// A remark for people, on standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet && !self.json {
            let _gone = writeln!(io::stderr(), "{text}");
        }
    }

    /// An error: `error: …` and `hint: …`, or the problem document, on standard error.
    pub(crate) fn error(&self, error: &Error) {
        let text = if self.json {
            let problem = Problem::new(error, None);
            serde_json::to_string(&problem).unwrap_or_default() + "\n"
        } else {
            let paint = io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let (red, cyan, reset) =
                if paint { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
            let line = |paint: &str, word: &str, text: &str| {
                format!("{paint}{word}:{reset} {}\n", escape::lines(text))
            };
            let hint = error.hint.as_deref().map(|hint| line(cyan, "hint", hint));
            let cause = error.internal.as_deref().map(|cause| line("", "cause", cause));
            [Some(line(red, "error", &error.message)), hint, cause].into_iter().flatten().collect()
        };
        let _gone = io::stderr().write_all(text.as_bytes());
    }

    fn failed(&self, error: &io::Error) -> Error {
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.closed.set(true);
        }
        unwritable("standard output", error)
    }
}
