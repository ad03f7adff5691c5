//! Tokens, sessions and the audit log.

use clap::{Args, Subcommand, ValueEnum};
use pinfold_types::{ByteSize, SessionId, access::Reach};

use super::values::{CpuMillis, Millis, WorkspaceRef};

/// `pinfold login`
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Open it in this machine's browser instead of printing it
    #[arg(long)]
    pub(crate) open: bool,
}

/// `pinfold token`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its text is printed once and never again
    Create(Box<TokenCreate>),
    /// List tokens, without their texts
    Ls,
    /// Revoke tokens and all that were made with them; their streams end
    Revoke(TokenRevoke),
}

/// `pinfold token create`
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// What people call it
    #[arg(required_unless_present = "self_of")]
    pub(crate) name: Option<String>,
    /// A right: noun:right, noun:* or * [default: all of yours; may be given again]
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Vec<String>,
    /// Ends after this long, such as 8h or 30d
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Millis>,
    /// Only this workspace, by id or name [may be given again]
    #[arg(long, value_name = "WORKSPACE")]
    pub(crate) workspace: Vec<WorkspaceRef>,
    /// Stands for you, with your workspaces and quota, not for somebody new
    #[arg(long)]
    pub(crate) as_me: bool,
    /// Which workspaces it sees
    #[arg(long, value_enum, default_value = "own")]
    pub(crate) reach: ReachArg,
    #[command(flatten)]
    pub(crate) quota: QuotaArgs,
    /// Instead of a text: who this is at the external provider (`sub`), who brings its tokens
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) subject: Option<String>,
    /// Instead: a token for the programs inside this workspace, to look at, snapshot and fork it
    #[arg(long, value_name = "WORKSPACE", conflicts_with_all = ["name", "scope", "expires", "workspace", "as_me", "subject"])]
    pub(crate) self_of: Option<WorkspaceRef>,
}

/// Which objects a token sees.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ReachArg {
    /// Those that it makes, or that tokens made with it make
    Own,
    /// Everybody's
    All,
}

impl From<ReachArg> for Reach {
    fn from(reach: ReachArg) -> Self {
        match reach {
            ReachArg::Own => Self::Own,
            ReachArg::All => Self::All,
        }
    }
}

/// Quota of whom a new token stands for.
#[expect(clippy::struct_field_names, reason = "each is an option of that name")]
#[derive(Debug, Args)]
pub(crate) struct QuotaArgs {
    /// Most workspaces
    #[arg(long, value_name = "N", help_heading = "Quota")]
    pub(crate) max_workspaces: Option<u64>,
    /// Most processors, over all its workspaces
    #[arg(long, value_name = "N", help_heading = "Quota")]
    pub(crate) max_cpus: Option<CpuMillis>,
    /// Most memory, over all its workspaces
    #[arg(long, value_name = "SIZE", help_heading = "Quota")]
    pub(crate) max_memory: Option<ByteSize>,
    /// Most disk, over all its workspaces
    #[arg(long, value_name = "SIZE", help_heading = "Quota")]
    pub(crate) max_disk: Option<ByteSize>,
    /// Most snapshots
    #[arg(long, value_name = "N", help_heading = "Quota")]
    pub(crate) max_snapshots: Option<u64>,
    /// Most streams at once
    #[arg(long, value_name = "N", help_heading = "Quota")]
    pub(crate) max_streams: Option<u64>,
}

/// `pinfold token revoke`
#[derive(Debug, Args)]
pub(crate) struct TokenRevoke {
    /// Ids or names
    #[arg(required = true, value_name = "TOKEN")]
    pub(crate) tokens: Vec<String>,
}

/// `pinfold session`
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List sessions with what they own
    Ls,
    /// Own a workspace that belongs to no live session, or every orphan
    Adopt(SessionAdopt),
    /// Own everything that another session owns, once it is silent
    Takeover(SessionOne),
    /// End a session; what it owns becomes an orphan
    End(SessionOne),
}

/// `pinfold session adopt`
#[derive(Debug, Args)]
pub(crate) struct SessionAdopt {
    /// Id or name
    #[arg(required_unless_present = "orphans")]
    pub(crate) workspace: Option<WorkspaceRef>,
    /// Every orphan
    #[arg(long, conflicts_with = "workspace")]
    pub(crate) orphans: bool,
}

/// One session.
#[derive(Debug, Args)]
pub(crate) struct SessionOne {
    /// Id
    pub(crate) session: SessionId,
}

/// `pinfold audit`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the last records of the audit log
    Tail(AuditTail),
    /// Check the whole log; names the first record that was changed, removed, moved or cut off
    Verify,
    /// Print records as they stand in the files, a JSON object a line
    Export(AuditExport),
}

/// `pinfold audit tail`
#[derive(Debug, Args)]
pub(crate) struct AuditTail {
    /// How many, 1 to 1000
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub(crate) lines: u32,
    /// Go on as records come
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// `pinfold audit export`
#[derive(Debug, Args)]
pub(crate) struct AuditExport {
    /// From this number on
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    pub(crate) from: u64,
}
