//! Workspaces.

use clap::Args;
use pinfold_types::{ImageName, WorkspaceName};

use super::values::{EnvVar, LimitArgs, Millis, Pair, WorkspaceRef};

/// What a new workspace is made of; shared by `create` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct New {
    /// Image [default: the configuration's, at first `host`]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<ImageName>,
    /// Environment of every command: NAME=VALUE, or NAME to pass yours on
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<EnvVar>,
    /// Host name inside
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Label
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<Pair>,
    /// Allow user namespaces inside, for rootless containers; every other wall stands
    #[arg(long)]
    pub(crate) nested: bool,
    /// Give programs inside a token and a socket, to snapshot and fork this workspace
    #[arg(long)]
    pub(crate) self_access: bool,
    /// Go on where memory, CPU or process limits cannot be enforced; recorded
    #[arg(long)]
    pub(crate) allow_unlimited: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// `pinfold create`
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name [default: two words]
    pub(crate) name: Option<WorkspaceName>,
    #[command(flatten)]
    pub(crate) new: New,
    /// Remove it this long after creation, such as 2h
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) ttl: Option<Millis>,
    /// Remove it after this long without use
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) idle: Option<Millis>,
    /// Do not start it
    #[arg(long)]
    pub(crate) stopped: bool,
    /// Command to start at every boot, in the background
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// `pinfold ls`
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only these
    #[arg(value_name = "WORKSPACE")]
    pub(crate) workspaces: Vec<WorkspaceRef>,
}

/// Commands over one or more workspaces.
#[derive(Debug, Args)]
pub(crate) struct Refs {
    /// Ids or names
    #[arg(required = true, value_name = "WORKSPACE")]
    pub(crate) workspaces: Vec<WorkspaceRef>,
}

/// Commands over one workspace.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
}

/// `pinfold stop`
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Ids or names
    #[arg(required = true, value_name = "WORKSPACE")]
    pub(crate) workspaces: Vec<WorkspaceRef>,
}

/// `pinfold rm`
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Ids or names
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "WORKSPACE")]
    pub(crate) workspaces: Vec<WorkspaceRef>,
    /// Every workspace
    #[arg(long)]
    pub(crate) all: bool,
    /// Not an error when it does not exist
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Their snapshots too, which otherwise stay
    #[arg(long)]
    pub(crate) snapshots: bool,
}

/// `pinfold rename`
#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    /// New name
    pub(crate) name: WorkspaceName,
}

/// `pinfold set`
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    /// New name
    #[arg(long)]
    pub(crate) name: Option<WorkspaceName>,
    /// Remove it this long from now; 0 for never
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) ttl: Option<Millis>,
    /// Remove it after this long without use; 0 for never
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) idle: Option<Millis>,
    /// Labels; they replace those it has
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<Pair>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// `pinfold logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Goes on with what the workspace's command says, until it ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
}
