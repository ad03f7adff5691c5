//! A home in one encrypted stream, and back.
//!
//! What belongs together is held together: the disks of all workspaces are captured first, each
//! with its processes held still, then the database is copied; both take moments. Then everything
//! is written, which may take hours, from copies that nobody else sees.

mod manifest;
mod restore;
mod write;

use std::{path::PathBuf, sync::Arc};

use pinfold_backup::{BackupKey, Key};
use pinfold_disk::{DiskLimits, Pool};
use pinfold_store::SnapshotState;
use pinfold_types::{
    Error, ErrorCode, Mode, Result, SnapshotId, WorkspaceId, WorkspaceState, api::CreateBackup,
    workspace::WorkspaceInfo,
};
use tokio::sync::OwnedMutexGuard;

pub use manifest::{BackupContents, BackupManifest};
pub use restore::{Restored, restore, verify};

use crate::{
    LocalNode,
    guest::ByteStream,
    images::{ImageHold, stream_of},
    make::disk_limits,
    node::{Inner, blocking},
};

/// Everything that a backup reads, held until it is written.
pub(crate) struct Captured {
    pub(crate) pool: Arc<Pool>,
    pub(crate) home: PathBuf,
    pub(crate) manifest: BackupManifest,
    pub(crate) database: PathBuf,
    /// Workspaces: id, copy of the disk, limits.
    pub(crate) disks: Vec<(WorkspaceId, String, DiskLimits)>,
    pub(crate) snapshots: Vec<SnapshotId>,
    /// Directories of image layers.
    pub(crate) layers: Vec<String>,
    _images: Vec<ImageHold>,
    _one: OwnedMutexGuard<()>,
}

impl Drop for Captured {
    fn drop(&mut self) {
        for (_, copy, _) in &self.disks {
            if let Err(error) = self.pool.remove(copy) {
                tracing::warn!(%error, copy, "a copy for a backup stays until the next start");
            }
        }
        let _gone = std::fs::remove_file(&self.database);
    }
}

impl LocalNode {
    /// Streams this home, encrypted with the key in `keys/backup.key`, which is made where there
    /// is none. One at a time.
    pub async fn backup(&self, request: CreateBackup) -> Result<ByteStream> {
        let (key, captured) = self
            .shielded(move |inner| async move {
                let one = Arc::clone(&inner.backup).try_lock_owned().map_err(|_| {
                    Error::new(ErrorCode::Conflict, "another backup is being made")
                        .hint("wait until it has ended")
                })?;
                let path = inner.home.root().join("keys/backup.key");
                let key = blocking(move || BackupKey::read_or_make(&path)).await?;
                Ok((Key::File(key), inner.capture_home(&request, one).await?))
            })
            .await?;
        Ok(stream_of(move |out| {
            write::write(captured, &key, out).inspect_err(|error| {
                tracing::warn!(%error, cause = error.internal, "a backup was broken off");
            })
        }))
    }
}

impl Inner {
    async fn capture_home(
        self: &Arc<Self>,
        request: &CreateBackup,
        one: OwnedMutexGuard<()>,
    ) -> Result<Captured> {
        if self.mode == Mode::User && !(request.without_disks && request.without_images) {
            return Err(Error::new(
                ErrorCode::Unavailable,
                "disks and layers of an ordinary user's server belong to its sub-ids, which a \
                 backup cannot read",
            )
            .hint("leave them out: --without-disks --without-images"));
        }
        let images = self.images.list();
        let holds =
            images.iter().map(|image| self.holds.hold(image.id)).collect::<Result<Vec<_>>>()?;
        let database = self.home.uploads().join(format!("backup-{}.db", SnapshotId::generate()));
        let mut captured = Captured {
            pool: Arc::clone(&self.pool),
            home: self.home.root().to_owned(),
            manifest: BackupManifest::new(self, *request),
            database,
            disks: Vec::new(),
            snapshots: Vec::new(),
            layers: Vec::new(),
            _images: holds,
            _one: one,
        };
        captured.manifest.images = images.len();
        for image in &images {
            // The skeleton of this machine's own image is small, and nobody could fetch it.
            let host = matches!(image.source, pinfold_types::image::ImageSource::Host);
            if self.mode == Mode::Root && (host || !request.without_images) {
                captured.layers.extend(image.layers.iter().cloned());
            }
        }
        captured.layers.sort_unstable();
        captured.layers.dedup();
        if !request.without_disks {
            self.capture_disks(&mut captured).await?;
            let ready = self.store.snapshots(None).await?.into_iter();
            let ready = ready.filter(|row| row.state == SnapshotState::Ready);
            captured.snapshots = ready.map(|row| row.id).collect();
        }
        captured.manifest.snapshots = captured.snapshots.len();
        self.store.backup_to(&captured.database).await?;
        Ok(captured)
    }

    async fn capture_disks(self: &Arc<Self>, captured: &mut Captured) -> Result<()> {
        use WorkspaceState::{Failed, Paused, Running, Stopped};
        for workspace in self.registry.list() {
            let _one = workspace.operation.lock().await;
            let row = workspace.row();
            if row.spec.ephemeral || !matches!(row.state, Running | Paused | Stopped | Failed) {
                continue;
            }
            let copy = SnapshotId::generate().to_string();
            match self.capture(&workspace, copy.clone()).await {
                Ok(_) => {}
                // It went while its turn came.
                Err(gone) if gone.code == ErrorCode::NotFound => continue,
                Err(failed) => {
                    let WorkspaceInfo { name, .. } = workspace.info();
                    return Err(Error {
                        message: format!("the disk of {:?}: {}", name.as_str(), failed.message),
                        ..failed
                    });
                }
            }
            captured.disks.push((row.id, copy, disk_limits(&row.spec.limits)));
            captured.manifest.workspaces.insert(row.id, row.name);
        }
        Ok(())
    }
}
