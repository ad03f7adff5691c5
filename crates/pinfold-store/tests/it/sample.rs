//! Rows to store, and a home to store them in.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use jiff::Timestamp;
use pinfold_store::{Event, SnapshotRow, SnapshotState, Store, WorkspaceRow, WorkspaceSpec};
use pinfold_types::{
    BootSecret, ImageId, SnapshotId, WorkspaceId, WorkspaceState, snapshot::SnapshotKind,
    workspace::Lineage,
};

/// A directory that is removed with everything in it.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700))
            .expect("a private directory");
        Self { dir }
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    pub(crate) async fn store(&self) -> Store {
        Store::open(self.db()).await.expect("the store opens")
    }
}

pub(crate) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).expect("a time")
}

pub(crate) fn workspace(name: &str) -> WorkspaceRow {
    WorkspaceRow {
        id: WorkspaceId::generate(),
        name: name.parse().expect("a name"),
        state: WorkspaceState::Creating,
        reason: None,
        boot: 0,
        image_id: ImageId::generate(),
        image_name: "host".parse().expect("a name"),
        spec: WorkspaceSpec::default(),
        lineage: Lineage::default(),
        pid: None,
        start_time: None,
        uid_slot: None,
        secret: Some(BootSecret::from_bytes([7; 32])),
        created_at: time(1_800_000_000_000),
        started_at: None,
        expires_at: None,
        last_active_at: time(1_800_000_000_000),
        base_snapshot: None,
    }
}

pub(crate) fn snapshot(of: &WorkspaceRow, name: &str) -> SnapshotRow {
    SnapshotRow {
        id: SnapshotId::generate(),
        name: name.parse().expect("a name"),
        state: SnapshotState::Creating,
        workspace: of.id,
        workspace_name: of.name.clone(),
        boot: of.boot,
        parent: None,
        kind: SnapshotKind::Disk,
        image_id: of.image_id,
        image_name: of.image_name.clone(),
        spec: of.spec.clone(),
        lineage: of.lineage.clone(),
        referenced_bytes: None,
        exclusive_bytes: None,
        method: String::new(),
        created_at: time(1_800_000_000_001),
    }
}

pub(crate) fn event(kind: &str, object: &str) -> Event {
    Event {
        at: time(1_800_000_000_002),
        kind: kind.into(),
        object: object.into(),
        principal: "server".into(),
        detail: serde_json::json!({ "outcome": "ok" }),
    }
}
