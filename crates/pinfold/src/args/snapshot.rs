//! Snapshots and forks.

use clap::{Args, Subcommand};
use pinfold_types::{SnapshotName, WorkspaceName};

use super::values::{EnvVar, ForkSource, LimitArgs, Millis, Pair, SnapshotRef, WorkspaceRef};

/// `pinfold snapshot`
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Keep the disk as it is now; processes stand still for that moment
    Create(SnapshotCreate),
    /// List snapshots, of one workspace or all
    Ls(SnapshotLs),
    /// Put a workspace's disk back to one of its snapshots
    Restore(SnapshotRestore),
    /// Remove snapshots
    Rm(SnapshotRm),
}

/// `pinfold snapshot create`
#[derive(Debug, Args)]
pub(crate) struct SnapshotCreate {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    /// Name [default: snap-N]
    pub(crate) name: Option<SnapshotName>,
}

/// `pinfold snapshot ls`
#[derive(Debug, Args)]
pub(crate) struct SnapshotLs {
    /// Id or name
    pub(crate) workspace: Option<WorkspaceRef>,
}

/// `pinfold snapshot restore`
#[derive(Debug, Args)]
pub(crate) struct SnapshotRestore {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    /// Id or name of one of its snapshots
    #[arg(value_parser = snapshot_word)]
    pub(crate) snapshot: String,
}

fn snapshot_word(text: &str) -> Result<String, pinfold_types::Error> {
    if text.parse::<pinfold_types::SnapshotId>().is_err() {
        text.parse::<SnapshotName>()?;
    }
    Ok(text.to_owned())
}

/// `pinfold snapshot rm`
#[derive(Debug, Args)]
pub(crate) struct SnapshotRm {
    /// Ids, or WORKSPACE:NAME
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<SnapshotRef>,
}

/// `pinfold fork`
#[derive(Debug, Args)]
pub(crate) struct Fork {
    /// Workspace, snapshot id, or WORKSPACE:SNAPSHOT
    #[arg(value_name = "SOURCE")]
    pub(crate) source: ForkSource,
    /// How many
    #[arg(long, short = 'n', allow_hyphen_values = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    /// Name of the only child, or the stem of several: NAME-1, NAME-2, …
    #[arg(long)]
    pub(crate) name: Option<WorkspaceName>,
    /// Environment of the children
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<EnvVar>,
    /// Labels of the children
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<Pair>,
    /// Remove them this long after creation
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(crate) ttl: Option<Millis>,
    /// Do not start them
    #[arg(long)]
    pub(crate) stopped: bool,
    /// Limits, to make them narrower
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Command to start in each child, in the background; `{}` is the child's number
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}
