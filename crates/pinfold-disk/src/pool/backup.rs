//! What a backup reads of a pool, and what a restore puts into a new one.

use std::{os::unix::fs::DirBuilderExt, path::PathBuf};

use pinfold_types::Error;

use super::Pool;
use crate::{
    error::At,
    id,
    layout::Shelf,
    types::{Disk, SealedLayer},
};

impl Pool {
    /// Where a disk or snapshot lies, and the sealed layers that it stands on, topmost first.
    pub fn stored(&self, id: &str) -> Result<(PathBuf, Vec<SealedLayer>), Error> {
        let place = self.inner.find(id)?;
        Ok((place.path(), self.inner.backend.sealed(&place)?))
    }

    /// Makes the directory of a sealed layer, to be filled before a disk names it. One that no
    /// disk names is removed at the next start.
    pub fn restore_layer(&self, name: &str) -> Result<PathBuf, Error> {
        id::check(name)?;
        let place = self.inner.layout.at(Shelf::Layers, name);
        self.inner.backend.stand_on(&place, &[])?;
        let path = place.path();
        std::fs::DirBuilder::new().mode(0o700).create(&path).at("make", path.display())?;
        Ok(path)
    }

    /// Makes an empty disk without limits or slots on layers that are there, topmost first.
    pub fn restore_disk(&self, id: &str, layers: &[String]) -> Result<Disk, Error> {
        let disk = self.create(id, &crate::DiskLimits::default(), 0)?;
        let place = self.inner.layout.at(Shelf::Disks, id);
        self.inner.backend.stand_on(&place, layers)?;
        Ok(disk)
    }
}
