//! What a backup says of itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pinfold_types::{Mode, WorkspaceId, WorkspaceName, api::CreateBackup};
use serde::{Deserialize, Serialize};

use crate::node::Inner;

/// Version of what the archive holds.
pub(super) const FORMAT: u32 = 1;

/// The first member of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupManifest {
    /// Version of the contents.
    pub format: u32,
    /// When it was begun.
    pub created_at: Timestamp,
    /// The program that made it.
    pub version: String,
    /// The home that it is of.
    pub home: String,
    /// `root` or `user`.
    pub mode: Mode,
    /// How the pool kept its disks.
    pub pool: String,
    /// Layers of images that can be fetched again were left out.
    pub without_images: bool,
    /// Disks of workspaces and snapshots were left out.
    pub without_disks: bool,
    /// Workspaces whose disks are in it.
    pub workspaces: BTreeMap<WorkspaceId, WorkspaceName>,
    /// Snapshots to come.
    pub snapshots: usize,
    /// Image records.
    pub images: usize,
}

impl BackupManifest {
    pub(super) fn new(inner: &Inner, request: CreateBackup) -> Self {
        Self {
            format: FORMAT,
            created_at: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: inner.home.root().display().to_string(),
            mode: inner.mode,
            pool: inner.pool.method().to_string(),
            without_images: request.without_images,
            without_disks: request.without_disks,
            workspaces: BTreeMap::new(),
            snapshots: 0,
            images: 0,
        }
    }
}

/// The member before the content of a disk or snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiskFacts {
    /// Sealed layers, topmost first.
    pub layers: Vec<String>,
    /// Most bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Most files and directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

/// The last member: what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupContents {
    /// Members before this one.
    pub members: u64,
    /// Disks of workspaces.
    pub disks: u64,
    /// Snapshots. One that was removed while the backup was made is not among them.
    pub snapshots: u64,
    /// Image layers.
    pub layers: u64,
    /// Sockets that were left out, as they mean nothing without the process behind them.
    pub sockets_left_out: u64,
    /// Files that were left out because their path is too long.
    pub paths_left_out: u64,
}
