//! Which workspaces exist, and which names are spoken for.
//!
//! A name is reserved before anything is made for it, so that two calls for one name at the
//! same instant end in one workspace and one conflict (INP-L2). A reservation that is dropped on
//! any path gives the name back.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use pinfold_types::{Error, ErrorCode, WorkspaceId, WorkspaceName, name::excerpt};

use crate::{names, workspace::Workspace};

/// Tries at a made-up name before a number is put behind it.
const PAIR_TRIES: usize = 8;
/// Tries at a numbered name.
const NUMBER_TRIES: usize = 64;

/// All workspaces of the node.
#[derive(Debug)]
pub(crate) struct Registry {
    max_count: usize,
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_id: HashMap<WorkspaceId, Arc<Workspace>>,
    by_name: HashMap<WorkspaceName, Holder>,
    reserved: usize,
}

#[derive(Clone, Copy, Debug)]
enum Holder {
    Reserved,
    Workspace(WorkspaceId),
}

/// A place among the workspaces and a name that nobody else can take. Dropped unused, both are
/// free again.
#[derive(Debug)]
pub(crate) struct Reservation {
    registry: Arc<Registry>,
    name: WorkspaceName,
    /// Whether it counts as a workspace to come (a rename does not).
    counted: bool,
    open: bool,
}

impl Registry {
    /// An empty registry for at most `max_count` workspaces.
    pub(crate) fn new(max_count: u64) -> Arc<Self> {
        Arc::new(Self {
            max_count: usize::try_from(max_count).unwrap_or(usize::MAX),
            tables: RwLock::default(),
        })
    }

    /// Takes this name, or makes one up, for a workspace about to be made.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        name: Option<&WorkspaceName>,
    ) -> Result<Reservation, Error> {
        let mut tables = self.write();
        if tables.by_id.len() + tables.reserved >= self.max_count {
            return Err(Error::new(
                ErrorCode::QuotaExceeded,
                format!("this server already has its most workspaces, {}", self.max_count),
            )
            .hint("remove some, or raise workspaces.max_count in config.toml"));
        }
        let name = match name {
            Some(name) => {
                if tables.by_name.contains_key(name) {
                    return Err(taken(name));
                }
                name.clone()
            }
            None => make_up(&tables)?,
        };
        tables.by_name.insert(name.clone(), Holder::Reserved);
        tables.reserved += 1;
        Ok(Reservation { registry: Arc::clone(self), name, counted: true, open: true })
    }

    /// Takes a new name for a workspace that exists.
    pub(crate) fn reserve_rename(
        self: &Arc<Self>,
        name: &WorkspaceName,
    ) -> Result<Reservation, Error> {
        let mut tables = self.write();
        if tables.by_name.contains_key(name) {
            return Err(taken(name));
        }
        tables.by_name.insert(name.clone(), Holder::Reserved);
        Ok(Reservation {
            registry: Arc::clone(self),
            name: name.clone(),
            counted: false,
            open: true,
        })
    }

    /// Puts a recorded workspace in, at recovery.
    pub(crate) fn insert_recovered(&self, workspace: &Arc<Workspace>) {
        let mut tables = self.write();
        tables.by_name.insert(workspace.name(), Holder::Workspace(workspace.id));
        tables.by_id.insert(workspace.id, Arc::clone(workspace));
    }

    /// Takes a workspace out and frees its name.
    pub(crate) fn remove(&self, id: WorkspaceId) {
        let mut tables = self.write();
        tables.by_id.remove(&id);
        tables
            .by_name
            .retain(|_, holder| !matches!(holder, Holder::Workspace(owner) if *owner == id));
    }

    /// The workspace with this id or name.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Workspace>, Error> {
        let tables = self.read();
        let found = if reference.starts_with("ws_") {
            let id: WorkspaceId = reference.parse()?;
            tables.by_id.get(&id)
        } else {
            let name: WorkspaceName = reference.parse()?;
            match tables.by_name.get(&name) {
                Some(Holder::Workspace(id)) => tables.by_id.get(id),
                _ => None,
            }
        };
        found.cloned().ok_or_else(|| {
            Error::not_found("workspace", excerpt(reference)).hint("pinfold ls lists what exists")
        })
    }

    /// The present name of a workspace, if it exists.
    pub(crate) fn name_of(&self, id: WorkspaceId) -> Option<WorkspaceName> {
        let workspace = self.read().by_id.get(&id).cloned()?;
        Some(workspace.with_row(|row| row.name.clone()))
    }

    /// Every workspace, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Workspace>> {
        let mut all: Vec<_> = self.read().by_id.values().cloned().collect();
        all.sort_unstable_by_key(|workspace| workspace.id);
        all
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The name that was taken.
    pub(crate) fn name(&self) -> &WorkspaceName {
        &self.name
    }

    /// The workspace is made: it takes the reserved place.
    pub(crate) fn fill(mut self, workspace: &Arc<Workspace>) {
        let mut tables = self.registry.write();
        tables.by_name.insert(self.name.clone(), Holder::Workspace(workspace.id));
        tables.by_id.insert(workspace.id, Arc::clone(workspace));
        tables.reserved -= usize::from(self.counted);
        drop(tables);
        self.open = false;
    }

    /// The rename is recorded: the old name is free, the new one leads to the workspace.
    pub(crate) fn move_name(mut self, id: WorkspaceId, old: &WorkspaceName) {
        let mut tables = self.registry.write();
        tables.by_name.remove(old);
        tables.by_name.insert(self.name.clone(), Holder::Workspace(id));
        drop(tables);
        self.open = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            let mut tables = self.registry.write();
            tables.by_name.remove(&self.name);
            tables.reserved -= usize::from(self.counted);
        }
    }
}

fn make_up(tables: &Tables) -> Result<WorkspaceName, Error> {
    let pairs = std::iter::repeat_with(names::pair).take(PAIR_TRIES);
    let numbered = std::iter::repeat_with(names::numbered).take(NUMBER_TRIES);
    pairs.chain(numbered).find(|name| !tables.by_name.contains_key(name)).ok_or_else(|| {
        Error::new(ErrorCode::Conflict, "no free made-up name was found").hint("give a name")
    })
}

fn taken(name: &WorkspaceName) -> Error {
    Error::new(ErrorCode::AlreadyExists, format!("a workspace named {:?} exists", name.as_str()))
        .hint("choose another name, or remove the old one: pinfold rm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_goes_to_one_caller_and_comes_back_when_dropped() {
        let registry = Registry::new(2);
        let name: WorkspaceName = "a".parse().expect("a name");
        let first = registry.reserve(Some(&name)).expect("free");
        let refused = registry.reserve(Some(&name)).expect_err("taken");
        assert_eq!(refused.code, ErrorCode::AlreadyExists);
        drop(first);
        let _first = registry.reserve(Some(&name)).expect("free again");
        let _second = registry.reserve(None).expect("made up");
        let refused = registry.reserve(None).expect_err("full");
        assert_eq!(refused.code, ErrorCode::QuotaExceeded);
        let rename = "b".parse().expect("a name");
        drop(registry.reserve_rename(&rename).expect("a rename needs no place"));
        assert_eq!(registry.find("a").expect_err("not made yet").code, ErrorCode::NotFound);
        assert_eq!(registry.find("ws_x").expect_err("no id").code, ErrorCode::InvalidArgument);
    }
}
