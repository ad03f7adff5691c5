//! Images: where a workspace's root filesystem comes from.
//!
//! An image is a list of immutable layers and a small record. Layers are directory trees named
//! by the SHA-256 of their uncompressed tar; records are JSON files. Both appear by one rename,
//! so a crash at any instant leaves either the old state or the new one, and what was half done
//! lies in `partial/`, which opening the store empties.
//!
//! What this room refuses: to trust an archive. Everything unpacked is confined beneath its
//! layer by the kernel, bounded in bytes, files, depth and ratio, and checked against its digest.
//! Nothing is fetched except through `pinfold-egress`.
#![forbid(unsafe_code)]

mod archive;
mod context;
mod debian;
mod error;
mod export;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod import;
mod layer;
mod oci;
mod pull;
mod registry;
mod retar;
mod seal;
pub mod steps;
mod store;
mod stream;
mod unpack;
mod userns;

pub use context::unpack_context;
pub use error::ImageError;
pub use import::ImportSource;
pub use store::{ImageStore, Pruned};
