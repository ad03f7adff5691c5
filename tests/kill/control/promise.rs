//! What one caller was promised.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Marker;

/// Whether something is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was acknowledged.
    Stands,
    /// That it ended was acknowledged.
    Gone,
    /// The call was cut off: either may be.
    #[default]
    Either,
}

/// A workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    pub(crate) fate: Fate,
    pub(crate) marker: Marker,
    /// The sessions that may own it; `None` is the default session.
    pub(crate) owners: BTreeSet<Option<String>>,
    /// Its maker went away from this server without waiting, which may come to it any time later.
    pub(crate) left: Option<u64>,
    /// Acknowledged snapshots by name, with the marker that each holds.
    pub(crate) snapshots: BTreeMap<String, Marker>,
}

impl Space {
    pub(crate) fn owned_by(owner: Option<String>) -> Self {
        let mut space = Self { owners: BTreeSet::from([owner]), ..Self::default() };
        space.marker.acknowledge(0);
        space
    }
}

/// A token.
#[derive(Clone, Debug)]
pub(crate) struct Minted {
    pub(crate) id: String,
    pub(crate) text: String,
    /// The token that it was made with, where that was not the caller's own.
    pub(crate) parent: Option<usize>,
    pub(crate) fate: Fate,
}

/// An answered call, as the audit log must have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) request: String,
    pub(crate) operation: &'static str,
    /// It succeeded; else it was refused or failed.
    pub(crate) ok: bool,
}
