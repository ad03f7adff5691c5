//! What can be typed. Each noun has its file; parsing refuses what no server could accept.

pub(crate) mod access;
pub(crate) mod backup;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod server;
pub(crate) mod snapshot;
pub(crate) mod values;
pub(crate) mod workspace;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done            1  a fault of Pinfold      2  wrong usage or value   3  no such object
  4  not allowed     5  conflict                6  over a limit, or full  7  timed out, cancelled
  8  upstream failed 9  cannot stand here      10  no server
`run`, `exec`, `shell` and `attach` give the command's own code; 124 for its time limit, 125 for a
failure of Pinfold, 126 and 127 as shells do, 128+N for signal N.";

/// Walled workspaces for agents and scripts.
///
/// Each workspace is a Linux environment of its own: files, processes, limits, and no network
/// until it is allowed. Run anything in one, fork it, throw it away.
#[derive(Debug, Parser)]
#[command(
    name = "pinfold",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options",
        help = "Where Pinfold keeps everything [default: $PINFOLD_HOME, else the XDG data \
                directory, for root /var/lib/pinfold]"
    )]
    pub(crate) home: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Global options",
        help = "Use the server at https://HOST:PORT instead of the home's; the token comes from \
                $PINFOLD_TOKEN or --token-file [default: $PINFOLD_SERVER]"
    )]
    pub(crate) server: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options",
        help = "Take the token for --server from this file, which only its owner can read"
    )]
    pub(crate) token_file: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "PIN",
        help_heading = "Global options",
        help = "Trust the authority with this fingerprint, sha256:…, and no other \
                [default: $PINFOLD_CA_PIN]"
    )]
    pub(crate) ca_pin: Option<String>,
    /// Trust the authorities in this file, PEM, and no others
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Print what the API answers, as JSON; errors too, on standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print only what was asked for: no progress, no notes
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a throw-away workspace: stream, exit with its code, gone
    Run(exec::Run),

    /// Make a workspace
    Create(workspace::Create),
    /// List workspaces
    #[command(visible_alias = "list")]
    Ls(workspace::Ls),
    /// Show everything about workspaces
    Info(workspace::Refs),
    /// Start stopped workspaces
    Start(workspace::Refs),
    /// Stop workspaces; their disks stay
    Stop(workspace::Stop),
    /// Freeze all processes of workspaces
    Pause(workspace::Refs),
    /// Let frozen workspaces go on
    Resume(workspace::Refs),
    /// Remove workspaces and their disks
    Rm(workspace::Rm),
    /// Give a workspace a new name
    Rename(workspace::Rename),
    /// Change limits, TTL, idle time or labels of a workspace, at once
    Set(workspace::Set),
    /// Show what workspaces use now
    Stats(workspace::Ls),
    /// Show what happened to a workspace
    Logs(workspace::Logs),

    /// Run a command in a workspace
    Exec(exec::Exec),
    /// Open a shell in a workspace
    Shell(exec::Shell),
    /// List the commands that run in a workspace
    Ps(workspace::One),
    /// Follow a command that runs already
    Attach(exec::Attach),
    /// Send a signal to a command in a workspace
    Kill(exec::Kill),

    /// Copy files between this machine and a workspace
    Cp(files::Cp),
    /// List and reach TCP ports inside a workspace
    #[command(subcommand)]
    Ports(files::Ports),

    /// Take, list, restore and remove snapshots
    #[command(subcommand, visible_alias = "snap")]
    Snapshot(snapshot::Snapshot),
    /// Make new workspaces from a workspace or a snapshot
    Fork(snapshot::Fork),

    /// List, bring in, build and remove images
    #[command(subcommand)]
    Image(image::Image),

    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// List sessions, and own what nobody is at work with
    #[command(subcommand)]
    Session(access::SessionCommand),
    /// Read, check and export the audit log
    #[command(subcommand)]
    Audit(access::AuditCommand),
    /// Print a link that signs a browser in as you, once
    Login(access::Login),
    /// Sign out every browser of yours
    Logout,
    /// Say whom the server takes you for, and what you hold
    Whoami,
    /// Write, check and restore encrypted backups of the whole home
    #[command(subcommand)]
    Backup(backup::Backup),

    /// Speak MCP on standard input and output, for agents
    ///
    /// A client starts this itself: claude mcp add pinfold -- pinfold mcp
    Mcp,

    /// Run the server in the foreground
    Up(server::Up),
    /// End the server of this home; workspaces go on
    Down(server::Down),
    /// Say what works on this machine, what does not, and the mend
    Doctor(server::Doctor),
    /// Show the authority of the server's own certificates
    #[command(subcommand)]
    Ca(server::Ca),
    /// Show the configuration
    #[command(subcommand)]
    Config(server::Config),
    /// Say which version this is, and which one the server runs
    Version,
    /// Print a completion script
    Completions(server::Completions),
    /// Write manual pages into a directory
    Man(server::Man),
    /// Print the API's `OpenAPI` document
    Openapi(server::Openapi),
    /// Names for completion scripts
    #[command(name = "__names", hide = true)]
    Names(server::Names),
}

impl Command {
    /// Whether the exit code belongs to a command inside, so that our own failures give 125.
    pub(crate) const fn passes_exit_code(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Exec(_) | Self::Shell(_) | Self::Attach(_))
    }

    /// The word of a command that only looks at this machine, or changes it.
    pub(crate) const fn local_only(&self) -> Option<&'static str> {
        match self {
            Self::Up(_) => Some("up"),
            Self::Down(_) => Some("down"),
            Self::Ca(_) => Some("ca"),
            Self::Config(_) => Some("config"),
            Self::Doctor(server::Doctor { attack: true, .. }) => Some("doctor --attack"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
