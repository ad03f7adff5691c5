//! Layers on disk: `layers/<sha256>/fs` and `layers/<sha256>/layer.json`, made in `partial/` and
//! moved into place by one rename.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ImageError, Result},
    files,
};

/// What is known of a layer besides its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    /// `sha256:…` of the uncompressed tar (OCI: the diff id).
    pub digest: String,
    /// Bytes of its regular files, each inode once.
    pub size_bytes: u64,
    /// Entries.
    pub files: u64,
    /// What was left out while unpacking, for the curious: device nodes, sockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

/// The directory of all layers and the one of half-made ones, on one filesystem.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    layers: PathBuf,
    partial: PathBuf,
}

impl Layers {
    /// Opens below the store's directory; half-made layers of an earlier process are removed.
    pub(crate) fn open(store: &Path) -> Result<Self> {
        let this = Self { layers: store.join("layers"), partial: store.join("partial") };
        files::make_dir(&this.layers, 0o700)?;
        files::make_dir(&this.partial, 0o700)?;
        let entries = fs::read_dir(&this.partial).map_err(ImageError::io("read", &this.partial))?;
        for entry in entries.flatten() {
            files::remove_any(&entry.path())?;
        }
        Ok(this)
    }

    /// The tree of a layer.
    pub(crate) fn tree(&self, digest: &str) -> PathBuf {
        self.directory(digest).join("fs")
    }

    fn directory(&self, digest: &str) -> PathBuf {
        self.layers.join(digest.trim_start_matches("sha256:"))
    }

    /// The facts of a layer that is here.
    pub(crate) fn get(&self, digest: &str) -> Option<LayerMeta> {
        let text = fs::read(self.directory(digest).join("layer.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// An empty tree to fill.
    pub(crate) fn draft(&self) -> Result<Draft> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.partial.join(format!("{}-{number}", std::process::id()));
        files::make_dir(&path, 0o700)?;
        let draft = Draft { path, kept: false };
        files::make_dir(&draft.tree(), 0o755)?;
        Ok(draft)
    }

    /// Moves a filled tree to its place. When the layer is there already, the draft is dropped.
    pub(crate) fn keep(&self, mut draft: Draft, meta: &LayerMeta) -> Result<()> {
        let target = self.directory(&meta.digest);
        if self.get(&meta.digest).is_some() {
            return Ok(());
        }
        files::remove_any(&draft.owners())?;
        files::replace_json(&draft.path.join("layer.json"), meta)?;
        files::sync_tree(&draft.path)?;
        match fs::rename(&draft.path, &target) {
            Ok(()) => draft.kept = true,
            // Somebody else was quicker with the same content.
            Err(_) if self.get(&meta.digest).is_some() => return Ok(()),
            Err(err) => return Err(ImageError::io("move into place", target)(err)),
        }
        files::sync_dir(&self.layers)
    }

    /// Every layer that is here, by digest.
    pub(crate) fn list(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.layers).map_err(ImageError::io("read", &self.layers))?;
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| format!("sha256:{name}"))
            .collect())
    }

    /// Removes a layer: first out of sight, then its files, so that a crash leaves no layer with
    /// half its files.
    pub(crate) fn remove(&self, digest: &str) -> Result<()> {
        let draft = self.draft()?;
        match fs::rename(self.directory(digest), draft.path.join("removed")) {
            Ok(()) => files::sync_dir(&self.layers),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(ImageError::io("remove", self.directory(digest))(err)),
        }
    }
}

/// A half-made layer, removed when dropped.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Where the owners of its files are written down, when they cannot be set at once.
    pub(crate) fn owners(&self) -> PathBuf {
        self.path.join("owners")
    }

    /// Where its files go.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path.join("fs")
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept
            && let Err(err) = files::remove_tree(&self.path)
        {
            // The next start removes what lies in partial/.
            tracing::warn!(%err, "a half-made layer stays until the next start");
        }
    }
}

/// Bytes (each inode once) and entries of a tree.
pub(crate) fn measure(tree: &Path) -> Result<(u64, u64)> {
    let mut seen = std::collections::HashSet::new();
    let (mut bytes, mut count) = (0, 0);
    let mut open = vec![tree.to_path_buf()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(ImageError::io("read", &dir))?;
        for entry in entries {
            let entry = entry.map_err(ImageError::io("read", &dir))?;
            let facts = entry.metadata().map_err(ImageError::io("look at", entry.path()))?;
            count += 1;
            if facts.is_dir() {
                open.push(entry.path());
            } else if facts.nlink() == 1 || seen.insert(facts.ino()) {
                bytes += facts.len();
            }
        }
    }
    Ok((bytes, count))
}
