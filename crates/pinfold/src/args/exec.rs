//! Commands inside workspaces.

use clap::Args;

use super::{
    values::{EnvVar, ExecRef, Millis, WorkspaceRef},
    workspace::New,
};

/// How streams are connected.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Streams {
    /// Give it a terminal [default: when ours is one, for `run`]
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Pass standard input on, even when it is a terminal
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Give it no input
    #[arg(long, conflicts_with = "interactive")]
    pub(crate) no_stdin: bool,
}

/// Where and as whom a command runs.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Place {
    /// User inside: name or number, with :GROUP where wanted [default: the image's]
    #[arg(long, short, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Directory inside
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
}

/// `pinfold run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) new: New,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Kill the command and all its children after this long
    #[arg(long, short = 'T', allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) timeout: Option<Millis>,
    #[command(flatten)]
    pub(crate) streams: Streams,
    /// Program and arguments [default: the image's]
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// `pinfold exec`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Environment: NAME=VALUE, or NAME to pass yours on
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<EnvVar>,
    /// Kill the command and all its children after this long
    #[arg(long, short = 'T', allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) timeout: Option<Millis>,
    #[command(flatten)]
    pub(crate) streams: Streams,
    /// Start it in the background and print its id
    #[arg(long, short = 'b', conflicts_with_all = ["tty", "interactive"])]
    pub(crate) background: bool,
    /// Run CMD, one word, as a line of /bin/sh
    #[arg(long, short = 'c')]
    pub(crate) shell: bool,
    /// Program and arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// `pinfold shell`
#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Environment: NAME=VALUE, or NAME to pass yours on
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<EnvVar>,
    /// Shell [default: bash where there is one, else sh]
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// `pinfold attach`
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    /// Command, as `pinfold ps` shows it
    pub(crate) exec: ExecRef,
    /// Replay output from this byte on [default: all that is kept]
    #[arg(long, allow_hyphen_values = true, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// Pass standard input on
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
}

/// `pinfold kill`
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    /// Command, as `pinfold ps` shows it
    pub(crate) exec: ExecRef,
    /// Signal: a number 1 to 64 or a name such as TERM
    #[arg(long, short, allow_hyphen_values = true, default_value = "TERM", value_parser = signal)]
    pub(crate) signal: i32,
}

const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
];

fn signal(text: &str) -> Result<i32, String> {
    let bare = text.strip_prefix("SIG").unwrap_or(text);
    SIGNALS
        .iter()
        .find(|(name, _)| *name == bare)
        .map(|(_, number)| *number)
        .or_else(|| text.parse().ok().filter(|number| (1..=64).contains(number)))
        .ok_or_else(|| "it is neither a number from 1 to 64 nor a name such as TERM".to_owned())
}
