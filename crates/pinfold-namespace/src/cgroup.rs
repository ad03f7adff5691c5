//! Resource limits by cgroups: v1 hierarchies, the v2 one, or a clear no.
//!
//! Groups are made below the server's own group in each hierarchy, at
//! `pinfold-<home tag>/<workspace id>`, so that limits set on the server from outside go on
//! holding. See cgroups(7), and `Documentation/admin-guide/cgroup-v1` and `cgroup-v2.rst`.

mod group;
mod hierarchy;
mod limits;
mod stop;

use std::path::PathBuf;

use pinfold_types::{
    Error, ErrorCode, Result, WorkspaceId,
    limits::{LimitKind, ResourceLimits},
};
use serde::{Deserialize, Serialize};

pub use group::{CgroupStats, WorkspaceCgroup};
use hierarchy::Hierarchies;

/// What a launch needs to start in a workspace's groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupJoin {
    /// `tasks` of each v1 group. A lone thread that moves itself by this file, and not by
    /// `cgroup.procs`, takes no lock of the whole machine, which would wait for milliseconds.
    pub tasks: Vec<PathBuf>,
    /// The v2 group.
    pub unified: Option<PathBuf>,
    /// `v1` or `v2`: who enforces.
    pub kind: String,
}

impl CgroupJoin {
    /// `v1` or `v2`.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

/// The limits this cgroup room can set; others belong to the disk, the launcher or the server.
pub const KINDS: [LimitKind; 5] =
    [LimitKind::Memory, LimitKind::Swap, LimitKind::Cpu, LimitKind::CpuWeight, LimitKind::Pids];

/// The machine's cgroups as this server may use them.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchies: Hierarchies,
}

impl Cgroups {
    /// Looks at what is mounted and writable. Never fails: what is missing is known with its
    /// reason. `home_tag` tells this home's groups from those of others.
    pub fn detect(home_tag: &str) -> Self {
        Self { hierarchies: Hierarchies::detect(home_tag) }
    }

    /// `v1`, `v2` or `none`.
    pub fn kind(&self) -> &str {
        self.hierarchies.kind()
    }

    /// What enforces this kind of limit, or why nothing can and what mends that.
    pub fn enforceable(&self, kind: LimitKind) -> Result<String, String> {
        self.hierarchies.enforceable(kind)
    }

    /// Makes a workspace's groups with their limits. A limit that nothing here can enforce is
    /// refused before anything is made.
    pub fn create(&self, id: &WorkspaceId, wanted: &ResourceLimits) -> Result<WorkspaceCgroup> {
        for kind in KINDS {
            if wanted.get(kind).is_some() {
                self.enforceable(kind).map_err(|why| cannot_enforce(kind, &why))?;
            }
        }
        let group = WorkspaceCgroup::create(&self.hierarchies, id)?;
        match group.apply(wanted) {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// The groups of a workspace that were made earlier, by this server or one before it.
    pub fn open(&self, id: &WorkspaceId) -> Option<WorkspaceCgroup> {
        WorkspaceCgroup::open(&self.hierarchies, id)
    }

    /// Removes the directories that hold workspaces' groups, where none is left in them. They are
    /// made by [`Self::detect`] only.
    pub fn remove_base(&self) {
        for base in self.hierarchies.v1.iter().chain(&self.hierarchies.unified) {
            let _ = std::fs::remove_dir(&base.directory);
        }
    }

    /// All workspaces that have a group in some hierarchy.
    pub fn list(&self) -> Vec<WorkspaceId> {
        self.hierarchies.list()
    }

    /// Why this machine has no cgroups to use, when [`Self::kind`] is `none`.
    pub fn reasons(&self) -> Vec<String> {
        self.hierarchies.reasons()
    }
}

fn cannot_enforce(kind: LimitKind, why: &str) -> Error {
    Error::new(ErrorCode::CannotEnforce, format!("{} cannot be enforced here: {why}", kind.field()))
        .hint("leave the limit out and pass --allow-unlimited, or mend what `pinfold doctor` names")
}

#[cfg(test)]
mod tests;
