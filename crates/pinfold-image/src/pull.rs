//! Images from registries, and the asynchronous face of imports.

use std::{path::PathBuf, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use pinfold_types::{
    Error, ErrorCode, ImageName,
    config::RegistryConfig,
    image::{ImageInfo, ImageProgress, ImageSource},
};
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    debian,
    error::{ImageError, Result},
    import::{ImportSource, Incoming, Progress, check_config, say},
    layer::LayerMeta,
    oci::{Descriptor, Digest, ImageConfig, layout},
    registry::{Reference, Repository},
    store::{ImageStore, Pins, architecture},
    unpack::Whiteouts,
};

/// How deep indexes may point to indexes.
const MAX_INDEX_DEPTH: u32 = 3;
/// Layers downloaded at once.
const DOWNLOADS: usize = 3;

impl ImageStore {
    /// Pulls `[registry/]repository[:tag][@sha256:…]`. `name` is what it is called here; absent,
    /// the reference without its digest. Progress that nobody takes in time is dropped.
    pub async fn pull(
        &self,
        reference: &str,
        name: Option<ImageName>,
        progress: mpsc::Sender<ImageProgress>,
    ) -> Result<ImageInfo, Error> {
        Ok(self.pull_inner(reference, name, &progress).await?)
    }

    async fn pull_inner(
        &self,
        text: &str,
        name: Option<ImageName>,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        let reference = Reference::parse(text)?;
        let registries = &self.config().registries;
        let config: RegistryConfig = registries
            .get(&reference.registry)
            .or_else(|| registries.get(reference.host()))
            .cloned()
            .unwrap_or_default();
        let repository = Arc::new(Repository::new(self.egress().clone(), &reference, config));
        say(progress, format!("asking {} for {}", reference.host(), reference.repository));
        let (mut document, digest) = repository.document(&reference.version).await?;
        for _ in 0..MAX_INDEX_DEPTH {
            let Some(next) = document.select(architecture())?.cloned() else { break };
            document = repository.document(next.digest.as_str()).await?.0;
        }
        let manifest = document.into_manifest()?;
        let limit = self.config().max_image_bytes;
        let total = manifest.layers.iter().try_fold(0u64, |sum, l| sum.checked_add(l.size));
        if total.is_none_or(|total| total > limit) {
            return Err(ImageError::Limit(format!(
                "the image is larger than {limit} bytes, the limit [images] max_image_bytes"
            )));
        }
        let config = ImageConfig::parse(&repository.small_blob(&manifest.config).await?)?;
        check_config(&config, manifest.layers.len())?;

        let pins = Arc::new(self.pins());
        let parts: Vec<(Descriptor, Digest)> =
            manifest.layers.into_iter().zip(config.rootfs.diff_ids.iter().cloned()).collect();
        let count = parts.len();
        let diffs: Arc<Vec<Digest>> =
            Arc::new(parts.iter().map(|(_, diff)| diff.clone()).collect());
        let mut ready = stream::iter(parts.into_iter().enumerate())
            .map(|(place, (blob, diff))| {
                let (store, repository) = (self.clone(), Arc::clone(&repository));
                let (pins, progress) = (Arc::clone(&pins), progress.clone());
                let diffs = Arc::clone(&diffs);
                async move {
                    let here = || store.is_here(&pins, &diffs[..=place]);
                    let path = store.fetch(&repository, &blob, here, &progress).await?;
                    Ok::<_, ImageError>((blob, diff, path))
                }
            })
            .buffered(DOWNLOADS);
        let mut layers: Vec<LayerMeta> = Vec::new();
        while let Some((blob, diff, path)) = ready.try_next().await? {
            say(progress, format!("unpacking layer {} of {count}", layers.len() + 1));
            let below = layers.iter().map(|layer| layer.digest.clone()).collect();
            layers.push(self.place(&pins, blob, diff, path, below).await?);
        }
        let source =
            ImageSource::Registry { reference: text.to_owned(), digest: digest.to_string() };
        let name = name.unwrap_or(reference.name);
        let store = self.clone();
        let defaults = config.defaults();
        blocking(move || store.record(&layers, source, defaults, Some(name))).await
    }

    /// The file of a blob; none when its layer is here already. One download at a time for one
    /// blob.
    async fn fetch(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        here: impl Fn() -> bool,
        progress: &Progress,
    ) -> Result<Option<PathBuf>> {
        let lock = self.blob_lock(blob.digest.as_str());
        let _one = lock.lock().await;
        if here() {
            return Ok(None);
        }
        let path = self.blob_path(&blob.digest);
        repository.download(blob, &path, progress).await?;
        Ok(Some(path))
    }

    async fn place(
        &self,
        pins: &Arc<Pins>,
        blob: Descriptor,
        diff: Digest,
        path: Option<PathBuf>,
        below: Vec<String>,
    ) -> Result<LayerMeta> {
        let (store, pins) = (self.clone(), Arc::clone(pins));
        blocking(move || {
            let incoming = Incoming {
                blob: Some(&blob.digest),
                diff: Some(&diff),
                whiteouts: Whiteouts::Oci,
                below: &below,
            };
            let file = store.blob_path(&blob.digest);
            let result = store.take_layer(&pins, &incoming, || {
                let dir = file.parent().expect("a blob lies in a directory");
                Ok(Box::new(layout::open_beneath(dir, file.file_name().expect("named").as_ref())?))
            });
            // Unpacked it is not needed; wrong, it must not be found again. Another pull that
            // waited for it finds the layer, or downloads again.
            if path.is_some() || result.is_err() {
                crate::files::remove_any(&file)?;
            }
            result
        })
        .await
    }

    /// Makes an image of what lies on this machine, or a new Debian.
    pub async fn import(
        &self,
        source: ImportSource,
        name: Option<ImageName>,
        progress: mpsc::Sender<ImageProgress>,
    ) -> Result<ImageInfo, Error> {
        let store = self.clone();
        let wanted = match source {
            ImportSource::Default { mirror } => {
                debian::Wanted::default_image(self.host_root(), mirror)
            }
            ImportSource::Debian { suite, packages, mirror } => {
                debian::Wanted { suite, packages, mirror, agent: false }
            }
            source => {
                return Ok(blocking(move || store.import_blocking(&source, name, &progress)).await?);
            }
        };
        Ok(debian::import(&store, wanted, name, &progress).await?)
    }
}

/// Runs on the pool of threads for slow work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(err) => Err(Error::new(ErrorCode::Internal, "image work stopped").context(err).into()),
    }
}
