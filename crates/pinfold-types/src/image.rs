//! Images as callers ask for them and see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ImageId, ImageName};

/// Where an image came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ImageSource {
    /// This machine's own `/usr`, read-only.
    Host,
    /// Made by mmdebstrap or debootstrap.
    Debian {
        /// Release code name.
        suite: String,
    },
    /// Pulled from a registry.
    Registry {
        /// As asked for.
        reference: String,
        /// Manifest digest, `sha256:…`.
        digest: String,
    },
    /// Imported from an archive, OCI layout or directory.
    Import {
        /// What kind: `oci-layout`, `docker-archive`, `rootfs-tar`, `directory`.
        format: String,
    },
    /// Built from steps.
    Template {
        /// Digest of the steps.
        steps_digest: String,
    },
}

/// Defaults an image brings for commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageDefaults {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Directory.
    pub cwd: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Entry point and command joined, used when `run` is given no command.
    pub command: Vec<String>,
}

/// An image as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Id.
    pub id: ImageId,
    /// Names that point to it.
    pub names: Vec<ImageName>,
    /// Where it came from.
    pub source: ImageSource,
    /// Layer digests, lowest first.
    pub layers: Vec<String>,
    /// Unpacked size of its own layers.
    pub size_bytes: u64,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// Defaults for commands.
    pub defaults: ImageDefaults,
    /// When it was made here.
    pub created_at: Timestamp,
    /// Workspaces and snapshots that stand on it.
    #[serde(default)]
    pub used_by: u64,
}

/// A step of long image work, streamed to the caller as one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum ImageProgress {
    /// A phase begins.
    Step {
        /// What is done.
        message: String,
    },
    /// Bytes done of the named part.
    Bytes {
        /// Layer digest or file name.
        part: String,
        /// Done.
        done_bytes: u64,
        /// In all, when known.
        total_bytes: Option<u64>,
    },
    /// A line of a build step's output.
    Output {
        /// Text, lossy UTF-8.
        text: String,
    },
    /// The end.
    Done {
        /// The image.
        image: Box<ImageInfo>,
    },
    /// The end, without an image.
    Failed {
        /// Why.
        error: crate::Error,
    },
}
