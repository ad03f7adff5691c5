//! The real guest in a process namespace of its own, spoken to by the host's real client.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod archive;
mod exec;
mod files;
mod harness;
mod hostile;
mod lifecycle;
mod net;
mod replay;
mod speed;
mod terminal;

// The host's client, from its source: the two ends are tested together without building all of
// the node, which they do not need.
#[path = "../../../pinfold-node/src"]
#[expect(dead_code, unreachable_pub, unused_imports, reason = "it is written for another crate")]
mod node {
    pub mod guest;
}
