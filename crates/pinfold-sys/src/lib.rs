//! The only unsafe code of Pinfold: thin, checked wrappers over the kernel.
//!
//! Each module wraps one facility that no well-kept crate wraps safely. Every unsafe block names
//! the invariant that makes it sound. Nothing here decides anything: policy lives above.
//!
//! Two modules have nothing unsafe, and are here because rooms that share no other one that speaks
//! to the kernel need them: [`partial`], by which guest and host write entries of archives, and
//! [`tree`], by which disks are copied and backups made.
#![expect(unsafe_code, reason = "this is the one room for it")]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod btrfs;
pub mod fill;
pub mod inherit;
pub mod launch;
pub mod loopdev;
pub mod memory;
pub mod mounts;
pub mod netif;
pub mod partial;
pub mod privilege;
pub mod profile;
pub mod quota;
pub mod signal;
pub mod spawn;
pub mod tree;
