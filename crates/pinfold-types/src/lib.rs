//! The words Pinfold uses: ids, names, sizes, limits, errors, states, requests and replies.
//!
//! Everything here is pure data with its rules. Nothing opens a file, reads a clock or
//! touches the network, so every other room may use it and every rule can be tested as a table.
//!
//! ```
//! use pinfold_types::{WorkspaceName, Error};
//! assert!("fix-42".parse::<WorkspaceName>().is_ok());
//! let refused: Error = "../etc".parse::<WorkspaceName>().unwrap_err();
//! assert_eq!(refused.code.as_str(), "invalid_name");
//! ```
#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod config;
pub mod error;
pub mod exec;
pub mod files;
pub mod id;
pub mod image;
pub mod limits;
pub mod name;
mod object;
pub mod rootfs;
pub mod schema;
pub mod secret;
pub mod size;
pub mod snapshot;
pub mod spans;
pub mod state;
pub mod subids;
mod unique;
pub mod workspace;

pub use error::{Error, ErrorCode, Result};
pub use id::{
    ExecId, ImageId, LayerId, PrincipalId, RequestId, SessionId, SnapshotId, TokenId, WorkspaceId,
};
pub use name::{ImageName, ImageReference, SnapshotName, WorkspaceName};
pub use rootfs::{Mode, RootMount};
pub use secret::BootSecret;
pub use size::ByteSize;
pub use state::{WorkspaceEvent, WorkspaceState};
