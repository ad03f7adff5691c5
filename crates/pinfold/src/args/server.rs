//! The server, and tools around the program.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{Listen, Millis};

/// `pinfold up`
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Leave after this long without work
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) idle_exit: Option<Millis>,
    /// Listen for TCP here instead of where the configuration says; repeatable; `none` for nowhere
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Vec<Listen>,
    /// Serve Prometheus metrics there: `ADDRESS:PORT` or `none` [default: metrics.listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,
    /// Where nobody has a token yet: write the first one to this new file, 0600
    #[arg(long, value_name = "FILE")]
    pub(crate) first_token: Option<PathBuf>,
    /// Started by another command: detach, log to server.log, report on standard output
    #[arg(long, hide = true)]
    pub(crate) on_demand: bool,
}

/// `pinfold down`
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Unmount the pool that Pinfold mounted, too; refused while a workspace runs
    #[arg(long)]
    pub(crate) unmount: bool,
}

/// `pinfold doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Try to break out of a workspace in every known way, and print the table
    #[arg(long)]
    pub(crate) attack: bool,
}

/// `pinfold config`
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the configuration in force, with its defaults, as TOML
    Show,
}

/// `pinfold ca`
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Print the fingerprint that clients pin
    Show,
    /// Print the authority's certificate, PEM
    Export {
        /// Write it here instead; the file must not exist
        file: Option<PathBuf>,
    },
}

/// `pinfold completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Shells with completion.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Shell {
    /// GNU bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// `pinfold man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory; made when absent
    pub(crate) directory: PathBuf,
}

/// `pinfold openapi`
#[derive(Debug, Args)]
pub(crate) struct Openapi {
    /// Print a table of the operations instead, as Markdown
    #[arg(long)]
    pub(crate) operations: bool,
}

/// Names for completion.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// `workspaces` or `images`
    pub(crate) kind: String,
}
