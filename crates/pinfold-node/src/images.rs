//! Images as the node sees them: which are stood on, and by whom.

mod holds;
mod work;

use std::collections::BTreeMap;

use pinfold_types::{ErrorCode, ImageId, Result, image::ImageInfo};

pub(crate) use holds::{ImageHold, ImageHolds};
pub(crate) use work::{Upload, stream_of};

use crate::{
    LocalNode,
    node::{Inner, blocking},
};

/// The image that is made of this machine itself.
const HOST: &str = "host";
/// The image for agents' ordinary work.
const DEFAULT: &str = "default";

impl LocalNode {
    /// Every image, oldest first, with how many workspaces and snapshots stand on each.
    pub async fn images(&self) -> Result<Vec<ImageInfo>> {
        let used = self.inner().images_in_use().await?;
        let mut images = self.inner().images.list();
        for image in &mut images {
            image.used_by = used.get(&image.id).copied().unwrap_or(0);
        }
        Ok(images)
    }

    /// One image, by id or name.
    pub async fn get_image(&self, reference: &str) -> Result<ImageInfo> {
        let mut image = self.inner().image_for(reference).await?;
        let used = self.inner().images_in_use().await?;
        image.used_by = used.get(&image.id).copied().unwrap_or(0);
        Ok(image)
    }
}

impl Inner {
    /// The image with this id or name. `host` is made of this machine when it is first asked for.
    pub(crate) async fn image_for(&self, reference: &str) -> Result<ImageInfo> {
        match self.images.get(reference) {
            Err(missing) if reference == HOST && missing.code == ErrorCode::NotFound => {
                let images = self.images.clone();
                blocking(move || images.ensure_host()).await
            }
            Err(missing) if reference == DEFAULT && missing.code == ErrorCode::NotFound => {
                Err(missing.hint("`pinfold image import default` makes it, in a few minutes"))
            }
            found => found,
        }
    }

    /// How many workspaces and snapshots stand on each image.
    pub(crate) async fn images_in_use(&self) -> Result<BTreeMap<ImageId, u64>> {
        let mut used = BTreeMap::new();
        for workspace in self.registry.list() {
            *used.entry(workspace.with_row(|row| row.image_id)).or_insert(0) += 1;
        }
        for snapshot in self.store.snapshots(None).await? {
            *used.entry(snapshot.image_id).or_insert(0) += 1;
        }
        Ok(used)
    }
}
