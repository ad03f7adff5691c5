//! Backups.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `pinfold backup`
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Write everything of this home into one encrypted file; the server goes on meanwhile
    Create(BackupCreate),
    /// Read a backup to its end and check all of it
    Verify(BackupVerify),
    /// Put a backup onto an empty home, given with --home
    Restore(BackupRestore),
}

/// What opens a backup.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// File with a key, 0600 [default: keys/backup.key in the home]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// File whose first line is a passphrase, 0600
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// `pinfold backup create`
#[derive(Debug, Args)]
pub(crate) struct BackupCreate {
    /// File to write, or `-` for standard output
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Leave out the layers of images: those from a registry can be fetched again
    #[arg(long)]
    pub(crate) without_images: bool,
    /// Leave out the disks of workspaces and snapshots
    #[arg(long)]
    pub(crate) without_disks: bool,
}

/// `pinfold backup verify`
#[derive(Debug, Args)]
pub(crate) struct BackupVerify {
    /// File to read, or `-` for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// `pinfold backup restore`
#[derive(Debug, Args)]
pub(crate) struct BackupRestore {
    /// File to read, or `-` for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}
