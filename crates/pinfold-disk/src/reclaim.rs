//! What is in a pool, and putting right what a crash left.

use std::collections::HashSet;

use pinfold_types::api::RecoveryAction;

use crate::{
    error::DiskError,
    id::ATTEMPT,
    layout::{Layout, Shelf},
    pool::Inner,
    types::{DiskEntry, DiskKind},
};

/// The id that a partial or removed disk was meant to have.
pub(crate) fn meant(name: &str) -> &str {
    name.split(ATTEMPT).next().unwrap_or(name)
}

pub(crate) fn list(layout: &Layout) -> Result<Vec<DiskEntry>, DiskError> {
    let mut entries = Vec::new();
    for shelf in Shelf::OF_DISKS {
        let kind = match shelf {
            Shelf::Disks => DiskKind::Workspace,
            Shelf::Snapshots => DiskKind::Snapshot,
            Shelf::Warm => DiskKind::Warm,
            Shelf::Partial | Shelf::Trash | Shelf::Layers => DiskKind::Partial,
        };
        entries.extend(
            layout
                .places(shelf)?
                .into_iter()
                .map(|place| DiskEntry { id: meant(&place.name).to_owned(), kind }),
        );
    }
    Ok(entries)
}

/// Removes everything half made or half removed, and what no one in `keep` owns.
pub(crate) fn reclaim(
    inner: &Inner,
    keep: &HashSet<String>,
) -> Result<Vec<RecoveryAction>, DiskError> {
    let layout = &inner.layout;
    let _alone = inner.reclaiming();
    let mut actions = Vec::new();
    let mut say = |object: &str, action: &str, reason: &str| {
        actions.push(RecoveryAction {
            kind: "disk".into(),
            object: object.into(),
            action: action.into(),
            reason: reason.into(),
        });
    };
    // Layers of what is removed here: they go with it, and are no news.
    let mut theirs = HashSet::new();
    for (shelf, what) in [(Shelf::Disks, "disk"), (Shelf::Snapshots, "snapshot")] {
        for mut gone in layout.places(shelf)? {
            if keep.contains(&gone.name) {
                continue;
            }
            let name = gone.name.clone();
            theirs.extend(inner.backend.named(&gone));
            if !inner.backend.destroys_atomically() {
                // Through the trash: if this is cut short too, the rest is plainly rubbish.
                let trash = layout.attempt(Shelf::Trash, &name);
                gone.move_to(&trash)?;
                gone = trash;
            }
            inner.backend.destroy(&gone)?;
            say(&name, "reclaimed", &format!("no record names this {what}"));
        }
    }
    for (shelf, action, reason) in [
        (Shelf::Partial, "undone", "it was half made"),
        (Shelf::Trash, "finished", "its removal had begun"),
    ] {
        for place in layout.places(shelf)? {
            theirs.extend(inner.backend.named(&place));
            inner.backend.destroy(&place)?;
            say(meant(&place.name), action, reason);
        }
    }
    inner.set_leftovers(false);
    // Last: what was removed above may have been the only one to name a layer.
    for name in inner.backend.collect(layout, None)? {
        inner.backend.destroy(&layout.at(Shelf::Trash, name.as_str()))?;
        if !theirs.contains(meant(&name)) {
            say(meant(&name), "reclaimed", "no disk or snapshot names this layer");
        }
    }
    let counters = inner.backend.sweep()?;
    if counters > 0 {
        say("quota groups", "reclaimed", &format!("{counters} belonged to disks that are gone"));
    }
    Ok(actions)
}
