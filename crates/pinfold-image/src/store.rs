//! The store: records, names, and the layers they keep alive.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use jiff::Timestamp;
use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Mode, RootMount,
    config::ImagesConfig,
    image::{ImageInfo, ImageSource},
};

use self::record::Record;
use crate::{
    error::{ImageError, Result},
    files, host,
    layer::{LayerMeta, Layers},
};

pub(crate) mod cache;
mod collect;
pub(crate) mod record;

pub use collect::Pruned;

/// Images of one home. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    records_dir: PathBuf,
    layers: Layers,
    mode: Mode,
    cache: cache::Cache,
    pins: Arc<Mutex<HashMap<String, usize>>>,
    layer_locks: Mutex<HashMap<String, Weak<Mutex<()>>>>,
    blobs_dir: PathBuf,
    blob_locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    config: ImagesConfig,
    egress: pinfold_egress::Client,
    host_root: PathBuf,
    records: Mutex<BTreeMap<ImageId, Record>>,
    /// Held while the `host` skeleton is made, so that it is made once.
    making_host: Mutex<()>,
}

impl ImageStore {
    /// Opens or makes the store in `dir` (0700) and removes what an earlier process left half
    /// done. One process at a time: the server's lock sees to that.
    pub fn open(
        dir: &Path,
        mode: Mode,
        config: &ImagesConfig,
        egress: pinfold_egress::Client,
    ) -> Result<Self, Error> {
        Ok(Self::open_with_host(dir, mode, config, egress, Path::new("/"))?)
    }

    pub(crate) fn open_with_host(
        dir: &Path,
        mode: Mode,
        config: &ImagesConfig,
        egress: pinfold_egress::Client,
        host_root: &Path,
    ) -> Result<Self> {
        files::make_dir(dir, 0o700)?;
        let records_dir = dir.join("records");
        files::make_dir(&records_dir, 0o700)?;
        let layers = Layers::open(dir)?;
        let records = record::load(&records_dir)?;
        Ok(Self {
            inner: Arc::new(Inner {
                records_dir,
                layers,
                cache: cache::Cache::open(dir)?,
                pins: Arc::default(),
                layer_locks: Mutex::default(),
                blobs_dir: blobs(dir)?,
                blob_locks: Mutex::default(),
                mode,
                config: config.clone(),
                egress,
                host_root: host_root.to_path_buf(),
                records: Mutex::new(records),
                making_host: Mutex::new(()),
            }),
        })
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.inner.layers
    }

    pub(crate) fn mode(&self) -> Mode {
        self.inner.mode
    }

    pub(crate) fn config(&self) -> &ImagesConfig {
        &self.inner.config
    }

    pub(crate) fn egress(&self) -> &pinfold_egress::Client {
        &self.inner.egress
    }

    /// The machine that images are made from: `/`, or a fake one in tests.
    pub(crate) fn host_root(&self) -> &Path {
        &self.inner.host_root
    }

    pub(crate) fn cache(&self) -> &cache::Cache {
        &self.inner.cache
    }

    pub(crate) fn record_of(&self, id: &ImageId) -> Result<Record, Error> {
        self.records().get(id).cloned().ok_or_else(|| Error::not_found("image", id))
    }

    /// Keeps layers from being collected while an image is made of them.
    pub(crate) fn pins(&self) -> Pins {
        Pins { all: Arc::clone(&self.inner.pins), mine: Mutex::default() }
    }

    /// One lock per layer that is being unpacked.
    pub(crate) fn layer_lock(&self, digest: &str) -> Arc<Mutex<()>> {
        let mut locks = self.inner.layer_locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(Mutex::new(()));
        locks.insert(digest.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// One lock per blob that is being downloaded.
    pub(crate) fn blob_lock(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.inner.blob_locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(digest.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Where a blob is downloaded to; what is there already is gone on from.
    pub(crate) fn blob_path(&self, digest: &crate::oci::Digest) -> PathBuf {
        self.inner.blobs_dir.join(digest.hex())
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<ImageId, Record>> {
        self.inner.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every image, oldest first.
    pub fn list(&self) -> Vec<ImageInfo> {
        self.records().values().map(|record| record.info.clone()).collect()
    }

    /// The image with this id or name. A name without a tag means `latest` where no image has
    /// the bare name.
    pub fn get(&self, reference: &str) -> Result<ImageInfo, Error> {
        let records = self.records();
        let found = if let Ok(id) = reference.parse::<ImageId>() {
            records.get(&id)
        } else {
            let name: ImageName = reference.parse()?;
            let with_tag = format!("{name}:latest");
            let by = |wanted: &str| {
                records.values().find(|r| r.info.names.iter().any(|n| n.as_str() == wanted))
            };
            by(name.as_str()).or_else(|| by(&with_tag))
        };
        found.map(|record| record.info.clone()).ok_or_else(|| {
            Error::not_found("image", reference)
                .hint("`pinfold image ls` lists what is here; `pinfold image pull` fetches more")
        })
    }

    /// The overlays that make up a root on this image, `/` first.
    pub fn root_mounts(&self, id: &ImageId) -> Result<Vec<RootMount>, Error> {
        let record = self.record_of(id)?;
        let root = self.inner.mode == Mode::Root;
        let trees: Vec<PathBuf> =
            record.info.layers.iter().rev().map(|digest| self.inner.layers.tree(digest)).collect();
        if let Some(missing) = trees.iter().find(|tree| !tree.is_dir()) {
            return Err(Error::new(
                ErrorCode::BadImage,
                format!("a layer of image {id} is missing"),
            )
            .hint("remove the image and import or pull it again")
            .context(missing.display()));
        }
        let mut mounts = Vec::with_capacity(1 + record.host_mounts.len());
        for mount in &record.host_mounts {
            let below = mount.target.trim_start_matches('/');
            let mut lowers: Vec<PathBuf> =
                trees.iter().map(|tree| tree.join(below)).filter(|tree| tree.is_dir()).collect();
            // A skeleton has an empty directory there to mount on; it hides nothing and costs a
            // lookup in each layer.
            lowers.retain(|tree| fs::read_dir(tree).is_ok_and(|mut dir| dir.next().is_some()));
            lowers.push(mount.source.clone());
            mounts.push(RootMount {
                target: mount.target.clone(),
                lowers,
                writable: root,
                idmapped: root,
            });
        }
        mounts.insert(
            0,
            RootMount { target: "/".into(), lowers: trees, writable: true, idmapped: root },
        );
        Ok(mounts)
    }

    /// The image `host`: a read-only view of this machine's `/usr` under a skeleton made from
    /// fixed rules. The skeleton is made at the first call and again when the rules or the
    /// host's packages changed; an image that workspaces stand on stays as it is.
    pub fn ensure_host(&self) -> Result<ImageInfo, Error> {
        Ok(self.ensure_host_inner()?)
    }

    fn ensure_host_inner(&self) -> Result<ImageInfo> {
        let _one = self.inner.making_host.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host::Host::new(&self.inner.host_root);
        let fingerprint = host.fingerprint();
        let name: ImageName = "host".parse().expect("a constant name");
        let known = self.records().values().find_map(|record| {
            let same = record.host_fingerprint.as_deref() == Some(fingerprint.as_str());
            let whole = record.info.layers.iter().all(|d| self.inner.layers.get(d).is_some());
            (same && whole && record.info.names.contains(&name)).then(|| record.info.clone())
        });
        if let Some(info) = known {
            return Ok(info);
        }
        let draft = self.inner.layers.draft()?;
        host.build(&draft.tree(), self.inner.mode == Mode::Root)?;
        let (size_bytes, count) = crate::layer::measure(&draft.tree())?;
        if self.inner.mode == Mode::User {
            crate::userns::give_to_root(&draft)?;
        }
        let meta = LayerMeta {
            digest: format!("sha256:{fingerprint}"),
            size_bytes,
            files: count,
            skipped: Vec::new(),
        };
        self.inner.layers.keep(draft, &meta)?;
        let record = Record {
            info: ImageInfo {
                id: ImageId::generate(),
                names: vec![name],
                source: ImageSource::Host,
                layers: vec![meta.digest],
                size_bytes,
                architecture: architecture().into(),
                defaults: host::defaults(),
                created_at: Timestamp::now(),
                used_by: 0,
            },
            host_fingerprint: Some(fingerprint),
            host_mounts: host.mounts(),
        };
        self.insert(record)
    }

    /// Writes a record; its names move here from whoever had them.
    pub(crate) fn insert(&self, record: Record) -> Result<ImageInfo> {
        let mut records = self.records();
        record::save(&self.inner.records_dir, &record)?;
        let taken: HashSet<ImageName> = record.info.names.iter().cloned().collect();
        for other in records.values_mut() {
            let before = other.info.names.len();
            other.info.names.retain(|name| !taken.contains(name));
            if other.info.names.len() != before {
                record::save(&self.inner.records_dir, other)?;
            }
        }
        let info = record.info.clone();
        records.insert(info.id, record);
        Ok(info)
    }
}

/// How long half a download is worth keeping.
const BLOB_AGE: Duration = Duration::from_hours(3 * 24);

/// The directory of downloads. Old halves are removed, young ones are gone on from.
fn blobs(dir: &Path) -> Result<PathBuf> {
    let blobs = dir.join("blobs");
    files::make_dir(&blobs, 0o700)?;
    for entry in fs::read_dir(&blobs).map_err(ImageError::io("read", &blobs))?.flatten() {
        let age = entry.metadata().and_then(|facts| facts.modified()).map(|time| time.elapsed());
        if !matches!(age, Ok(Ok(age)) if age < BLOB_AGE) {
            files::remove_any(&entry.path())?;
        }
    }
    Ok(blobs)
}

/// This machine's architecture in the words of OCI images.
pub(crate) const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else if cfg!(target_arch = "riscv64") {
        "riscv64"
    } else {
        "unknown"
    }
}

/// Layers that an unfinished operation stands on. Dropping it lets go of them.
#[derive(Debug)]
pub(crate) struct Pins {
    all: Arc<Mutex<HashMap<String, usize>>>,
    mine: Mutex<Vec<String>>,
}

impl Pins {
    /// Holds one more.
    pub(crate) fn add(&self, digest: &str) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(digest.to_owned()).or_default() += 1;
        self.mine.lock().unwrap_or_else(PoisonError::into_inner).push(digest.to_owned());
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in self.mine.get_mut().unwrap_or_else(PoisonError::into_inner) {
            if let Some(count) = all.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    all.remove(digest);
                }
            }
        }
    }
}
