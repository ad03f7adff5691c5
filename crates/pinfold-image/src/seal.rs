//! A workspace's disk to a layer, and layers to an image.

use std::path::{Path, PathBuf};

use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Mode,
    image::{ImageDefaults, ImageInfo, ImageSource},
};

use crate::{
    error::{ImageError, Result},
    import::{Incoming, tar_stream},
    layer::LayerMeta,
    oci::MAX_LAYERS,
    retar::{Origin, Retar},
    store::{ImageStore, record::Record},
    unpack::Whiteouts,
};

impl ImageStore {
    /// Makes a layer of a stopped workspace's upper directories, one for each of its mounts
    /// (`targets`, `/` first), and returns its digest. The layer stays until an image or a cache
    /// entry uses it, or the next prune.
    pub fn seal_layer(&self, upper_slots: &[PathBuf], targets: &[String]) -> Result<String, Error> {
        if upper_slots.is_empty() || upper_slots.len() != targets.len() || targets[0] != "/" {
            return Err(Error::internal("slots and targets do not fit together"));
        }
        Ok(self.seal(upper_slots, targets)?)
    }

    fn seal(&self, uppers: &[PathBuf], targets: &[String]) -> Result<String> {
        let slots: Vec<(PathBuf, String)> = uppers
            .iter()
            .cloned()
            .zip(targets.iter().map(|target| target.trim_matches('/').to_owned()))
            .collect();
        let mode = self.mode();
        let stream = tar_stream(move |out| {
            let mut archive = Retar::new(out, Origin::Upper);
            // What the first mount holds below another's target is hidden by that one.
            archive.leave_out(slots[1..].iter().map(|(_, below)| PathBuf::from(below)).collect());
            archive.tree_as(mode, &slots[0].0, "")?;
            archive.leave_out(Vec::new());
            for (upper, below) in &slots[1..] {
                if mode == Mode::User || has_entries(upper)? {
                    archive.tree_as(mode, upper, below)?;
                }
            }
            archive.finish().map(drop)
        })?;
        let pins = self.pins();
        let incoming = Incoming { blob: None, diff: None, whiteouts: Whiteouts::Oci, below: &[] };
        Ok(self.take_layer(&pins, &incoming, || Ok(Box::new(stream)))?.digest)
    }

    /// Makes an image: the layers of `base`, then `layers`, lowest first.
    pub fn commit(
        &self,
        base: &ImageId,
        layers: &[String],
        defaults: ImageDefaults,
        source: ImageSource,
        name: Option<ImageName>,
    ) -> Result<ImageInfo, Error> {
        let base = self.record_of(base)?;
        let pins = self.pins();
        let mut all = Vec::with_capacity(base.info.layers.len() + layers.len());
        for digest in base.info.layers.iter().chain(layers) {
            pins.add(digest);
            let meta = self.layers().get(digest).ok_or_else(|| {
                Error::new(ErrorCode::BadImage, format!("the layer {digest} is not here"))
                    .hint("build again: it was removed meanwhile")
            })?;
            all.push(meta);
        }
        if all.len() > MAX_LAYERS {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the image would have more than {MAX_LAYERS} layers"),
            )
            .hint("join several RUN steps into one"));
        }
        Ok(self.insert(committed(base, &all, defaults, source, name))?)
    }

    /// The layer that an earlier build made for this key, if it is still here.
    pub fn cached_layer(&self, key: &str) -> Option<String> {
        self.cache().get(key).filter(|digest| self.layers().get(digest).is_some())
    }

    /// Remembers that this key makes this layer.
    pub fn cache_layer(&self, key: &str, layer: &str) -> Result<(), Error> {
        Ok(self.cache().put(key, layer)?)
    }
}

fn committed(
    base: Record,
    layers: &[LayerMeta],
    defaults: ImageDefaults,
    source: ImageSource,
    name: Option<ImageName>,
) -> Record {
    Record {
        info: ImageInfo {
            id: ImageId::generate(),
            names: name.into_iter().collect(),
            source,
            layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
            size_bytes: layers.iter().map(|layer| layer.size_bytes).sum(),
            defaults,
            created_at: jiff::Timestamp::now(),
            used_by: 0,
            ..base.info
        },
        host_fingerprint: None,
        host_mounts: base.host_mounts,
    }
}

fn has_entries(dir: &Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(dir).map_err(ImageError::io("read", dir))?;
    Ok(entries.next().is_some())
}
