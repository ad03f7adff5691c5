//! How a workspace's root is put together, and in which mode Pinfold runs.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether Pinfold runs as root or as an ordinary user with a range of sub-ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Effective uid 0 on the host.
    Root,
    /// Anybody else.
    User,
}

impl Mode {
    /// The word that `info` and `doctor` show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }
}

/// One overlay of a workspace's root. The first has target `/`; further ones cover a directory of
/// it (the `host` image's `/usr`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMount {
    /// Where it is seen inside.
    pub target: String,
    /// Directory trees, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Whether the workspace's disk holds an upper layer for it. Without, it is a read-only view.
    pub writable: bool,
    /// Whether the trees' owners are unshifted (0 is root) and need an idmapped mount.
    pub idmapped: bool,
}
