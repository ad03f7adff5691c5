//! Image records: `records/<image id>.json`, 0600, replaced by rename.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use pinfold_types::{ImageId, image::ImageInfo};
use serde::{Deserialize, Serialize};

use crate::{
    error::{ImageError, Result},
    files,
};

/// Longest record file.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// A directory of this machine that an image shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostMount {
    /// Where it is seen inside.
    pub target: String,
    /// Where it is on this machine.
    pub source: PathBuf,
}

/// An image as kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What callers see.
    pub info: ImageInfo,
    /// Of the inputs that the `host` skeleton was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_fingerprint: Option<String>,
    /// Directories of this machine below the layers; inherited by images built on `host`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_mounts: Vec<HostMount>,
}

/// Reads every record. A file that is not one is left where it is, and said.
pub(crate) fn load(dir: &Path) -> Result<BTreeMap<ImageId, Record>> {
    let mut records = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(ImageError::io("read", dir))?.flatten() {
        let path = entry.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => {}
            // A record that was being written when the process died.
            Some("new") => {
                files::remove_any(&path)?;
                continue;
            }
            _ => continue,
        }
        let text = files::read_bounded(&path, MAX_RECORD_BYTES)?;
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) => {
                records.insert(record.info.id, record);
            }
            Err(err) => tracing::error!(path = %path.display(), %err, "not an image record"),
        }
    }
    // A crash between two writes can leave one name on two images: the younger has it.
    let mut seen = HashSet::new();
    for record in records.values_mut().rev() {
        record.info.names.retain(|name| seen.insert(name.clone()));
    }
    Ok(records)
}

/// Writes one record.
pub(crate) fn save(dir: &Path, record: &Record) -> Result<()> {
    files::replace_json(&dir.join(format!("{}.json", record.info.id)), record)
}
