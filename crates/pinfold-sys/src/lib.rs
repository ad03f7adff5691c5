//! The only unsafe code of Pinfold: thin, checked wrappers over the kernel.
//!
//! Each module wraps one facility that no well-kept crate wraps safely. Every unsafe block names
//! the invariant that makes it sound. Nothing here decides anything: policy lives above.
//!
//! One module has nothing unsafe: [`partial`] is here because guest and host both write entries of
//! archives, and share no other room that speaks to the kernel.
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
pub mod quota;
pub mod signal;
pub mod spawn;
