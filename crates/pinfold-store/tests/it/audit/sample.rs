//! A place for a log, and events.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use pinfold_store::audit::{AuditEvent, AuditKey, AuditLog, AuditOptions, Phase};

use crate::sample::time;

/// A home with `audit` and `keys` in it, removed at the end.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::inside(&std::env::temp_dir())
    }

    pub(crate) fn inside(parent: &Path) -> Self {
        let dir = tempfile::tempdir_in(parent).expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700))
            .expect("a private directory");
        Self { dir }
    }

    pub(crate) fn home(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    pub(crate) fn key(&self) -> AuditKey {
        AuditKey::open(&self.keys()).expect("a key")
    }

    pub(crate) fn open(&self) -> AuditLog {
        self.try_open().expect("the log opens")
    }

    pub(crate) fn try_open(&self) -> pinfold_types::Result<AuditLog> {
        AuditLog::open(&self.audit(), AuditKey::open(&self.keys())?, AuditOptions::default())
    }

    pub(crate) fn open_with(&self, options: AuditOptions) -> AuditLog {
        AuditLog::open(&self.audit(), self.key(), options).expect("the log opens")
    }
}

pub(crate) fn event(n: usize) -> AuditEvent {
    let mut event = AuditEvent::new(time(1_800_000_000_000), Phase::Begin, "workspace.create")
        .with("n", n.to_string())
        .with("text", "quoted \"ß\"\n");
    event.principal = "user:owner".into();
    event.credential = Some("3f9a".into());
    event.surface = "http".into();
    event.peer = Some("127.0.0.1:4711".into());
    event.object = format!("workspace w{n}");
    event.decision = "allow".into();
    event.rule = "scope workspaces:write".into();
    event.request = format!("req-{n}");
    event.made = vec![format!("ws_{n}")];
    event
}
