//! Which step on which layers made which layer: `cache/<key>`, one digest each.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ImageError, Result},
    files,
};

/// Results of build steps.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    layer: String,
}

impl Cache {
    pub(crate) fn open(store: &Path) -> Result<Self> {
        let dir = store.join("cache");
        files::make_dir(&dir, 0o700)?;
        Ok(Self { dir })
    }

    /// Keys are digests, so they are file names.
    fn path(&self, key: &str) -> PathBuf {
        let name: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        self.dir.join(name).with_extension("json")
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let text = fs::read(self.path(key)).ok()?;
        serde_json::from_slice::<Line>(&text).ok().map(|line| line.layer)
    }

    pub(crate) fn put(&self, key: &str, layer: &str) -> Result<()> {
        files::replace_json(&self.path(key), &Line { layer: layer.to_owned() })
    }

    /// Forgets results whose layer is not in `kept`.
    pub(crate) fn forget_others(&self, kept: &HashSet<String>) -> Result<()> {
        let entries = fs::read_dir(&self.dir).map_err(ImageError::io("read", &self.dir))?;
        for entry in entries.flatten() {
            let line = fs::read(entry.path()).ok();
            let line = line.and_then(|text| serde_json::from_slice::<Line>(&text).ok());
            if !line.is_some_and(|line| kept.contains(&line.layer)) {
                files::remove_any(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Layers that results point to.
    pub(crate) fn layers(&self) -> HashSet<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| fs::read(entry.path()).ok())
            .filter_map(|text| serde_json::from_slice::<Line>(&text).ok())
            .map(|line| line.layer)
            .collect()
    }
}
