//! Removing images, and the layers that nothing stands on any more.

use std::collections::HashSet;

use pinfold_types::{Error, ImageId, ImageName};

use super::{ImageStore, PoisonError};
use crate::{error::Result, files};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images.
    pub images: Vec<ImageId>,
    /// Layers, by digest.
    pub layers: Vec<String>,
    /// Bytes of those layers.
    pub freed_bytes: u64,
}

impl ImageStore {
    /// Removes an image, by id or name. A name that is one of several is only taken away. The
    /// caller has made sure that no workspace or snapshot stands on it.
    pub fn remove(&self, reference: &str) -> Result<Pruned, Error> {
        let info = self.get(reference)?;
        let by_name = info.names.len() > 1 && reference.parse::<ImageId>().is_err();
        if by_name {
            let kept = info.names.iter().filter(|name| name.as_str() != reference).cloned();
            self.set_names(&info.id, kept.collect())?;
            return Ok(Pruned::default());
        }
        Ok(self.drop_images(&[info.id], false)?)
    }

    /// Removes images without a name (with `all`: every image) except those in `keep`, results
    /// of build steps that no image uses, and layers that nothing stands on.
    pub fn prune(&self, keep: &HashSet<ImageId>, all: bool) -> Result<Pruned, Error> {
        let doomed: Vec<ImageId> = self
            .list()
            .into_iter()
            .filter(|info| !keep.contains(&info.id) && (all || info.names.is_empty()))
            .map(|info| info.id)
            .collect();
        Ok(self.drop_images(&doomed, true)?)
    }

    /// Gives an image one more name; whoever had it loses it.
    pub fn tag(&self, id: &ImageId, name: ImageName) -> Result<(), Error> {
        let mut record = self.record_of(id)?;
        if !record.info.names.contains(&name) {
            record.info.names.push(name);
        }
        self.insert(record)?;
        Ok(())
    }

    fn set_names(&self, id: &ImageId, names: Vec<ImageName>) -> Result<(), Error> {
        let mut record = self.record_of(id)?;
        record.info.names = names;
        self.insert(record)?;
        Ok(())
    }

    fn drop_images(&self, doomed: &[ImageId], forget: bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let mut records = self.records();
        for id in doomed {
            if records.remove(id).is_some() {
                files::remove_any(&self.inner.records_dir.join(format!("{id}.json")))?;
                pruned.images.push(*id);
            }
        }
        files::sync_dir(&self.inner.records_dir)?;
        // Both locks are held until the layers are out of sight: a pin taken later finds them
        // gone, one taken earlier keeps them.
        let pins = self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept: HashSet<String> =
            records.values().flat_map(|record| record.info.layers.iter().cloned()).collect();
        if forget {
            self.inner.cache.forget_others(&kept)?;
        } else {
            kept.extend(self.inner.cache.layers());
        }
        for digest in self.inner.layers.list()? {
            if !kept.contains(&digest) && !pins.contains_key(&digest) {
                let meta = self.inner.layers.get(&digest);
                self.inner.layers.remove(&digest)?;
                pruned.freed_bytes += meta.map_or(0, |meta| meta.size_bytes);
                pruned.layers.push(digest);
            }
        }
        Ok(pruned)
    }
}
