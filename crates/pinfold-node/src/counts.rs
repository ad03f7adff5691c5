//! What the node has done since it was opened, for whoever watches it.

use std::sync::atomic::{AtomicU64, Ordering};

use pinfold_types::Result;

use crate::{
    LocalNode,
    node::{Inner, blocking},
};

/// Counters of the node's own work.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    execs: AtomicU64,
    boots: AtomicU64,
}

impl Counts {
    pub(crate) fn exec_started(&self) {
        self.execs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn booted(&self) {
        self.boots.fetch_add(1, Ordering::Relaxed);
    }
}

/// A look at the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Commands started since the server did, start-up commands not among them.
    pub execs: u64,
    /// Boots whose guest answered.
    pub boots: u64,
    /// Size of the pool.
    pub pool_bytes: u64,
    /// Room in the pool.
    pub pool_free_bytes: u64,
}

impl LocalNode {
    /// What the node has done, and the room in its pool.
    pub async fn counts(&self) -> Result<NodeCounts> {
        let Inner { counts, pool, .. } = &**self.inner();
        let pool = std::sync::Arc::clone(pool);
        let space = blocking(move || pool.space()).await?;
        Ok(NodeCounts {
            execs: counts.execs.load(Ordering::Relaxed),
            boots: counts.boots.load(Ordering::Relaxed),
            pool_bytes: space.total_bytes,
            pool_free_bytes: space.free_bytes,
        })
    }
}
