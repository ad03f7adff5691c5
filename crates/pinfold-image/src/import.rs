//! Layers and images from what lies on this machine's disk.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use pinfold_types::{
    ImageId, ImageName, Mode,
    image::{ImageDefaults, ImageInfo, ImageProgress, ImageSource},
};

use crate::{
    archive::Archive,
    error::{ImageError, Result},
    layer::LayerMeta,
    oci::{self, Digest, layout},
    retar::{Origin, Retar},
    store::{ImageStore, Pins, architecture, record::Record},
    stream,
    unpack::{self, Limits, Options, Whiteouts},
};

/// Longest time for one layer.
const LAYER_TIME: Duration = Duration::from_hours(1);

/// Where progress goes. Events are dropped while the listener is slow: the last one tells all.
pub(crate) type Progress = tokio::sync::mpsc::Sender<ImageProgress>;

pub(crate) fn say(progress: &Progress, message: impl Into<String>) {
    // A listener that is gone or slow must not stop the work.
    let _ = progress.try_send(ImageProgress::Step { message: message.into() });
}

/// What is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportSource {
    /// A file or directory that is one of the following: found out.
    Detect(PathBuf),
    /// An OCI image layout: a directory, or a tar of one (plain, gzip, zstd).
    OciLayout(PathBuf),
    /// What `docker save` writes, either generation.
    DockerArchive(PathBuf),
    /// A tar of a root filesystem (plain, gzip, zstd).
    RootfsTar(PathBuf),
    /// A directory that is a root filesystem.
    Directory(PathBuf),
    /// What agents' ordinary work needs: a Debian with Python, Node, git, a compiler and small
    /// tools, and the user `agent` (1000) who owns `/workspace`.
    Default {
        /// As for [`Debian`](Self::Debian).
        mirror: Option<String>,
    },
    /// A new Debian made by mmdebstrap, or by debootstrap.
    Debian {
        /// Release, for example `bookworm`.
        suite: String,
        /// Packages besides the smallest set.
        packages: Vec<String>,
        /// Mirror; absent: the configured one, else the host's own, else Debian's.
        /// One on a private network must be configured, or be the host's own.
        mirror: Option<String>,
    },
}

/// A layer about to be unpacked.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    /// Of the stream as it comes, when somebody said it.
    pub blob: Option<&'a Digest>,
    /// Of the plain tar, when somebody said it.
    pub diff: Option<&'a Digest>,
    pub whiteouts: Whiteouts,
    /// Digests of the layers below, lowest first.
    pub below: &'a [String],
}

impl ImageStore {
    /// Unpacks one layer, or finds it: two who bring the same one at the same time unpack once.
    pub(crate) fn take_layer(
        &self,
        pins: &Pins,
        incoming: &Incoming<'_>,
        open: impl FnOnce() -> Result<Box<dyn Read>>,
    ) -> Result<LayerMeta> {
        let lock = incoming.diff.map(|diff| self.layer_lock(diff.as_str()));
        let _one = lock.as_ref().map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(diff) = incoming.diff
            && let Some(meta) = self.find_layer(pins, diff, incoming.below)
        {
            return Ok(meta);
        }
        let draft = self.layers().draft()?;
        let config = self.config();
        let limits = Limits {
            bytes: config.max_image_bytes,
            files: config.max_image_files,
            time: LAYER_TIME,
        };
        // Headers are not data: room for a few kilobytes of them a file.
        let plain_limit =
            limits.bytes.saturating_add(limits.files.saturating_mul(4096)).saturating_add(64 << 20);
        let expanded = stream::expand(open()?, plain_limit)?;
        let lowers: Vec<PathBuf> =
            incoming.below.iter().rev().map(|digest| self.layers().tree(digest)).collect();
        let owners = draft.owners();
        let options = Options {
            limits,
            whiteouts: incoming.whiteouts,
            lowers: &lowers,
            owners: (self.mode() == Mode::User).then_some(owners.as_path()),
        };
        let mut reader = expanded.reader;
        let report = unpack::unpack(&mut reader, &draft.tree(), &options)?;
        drop(reader);
        check("layer", incoming.blob, &expanded.outer.digest())?;
        let diff = expanded.inner.digest();
        check("unpacked layer", incoming.diff, &diff)?;
        let digest = if report.adopted { adopted_digest(&diff, incoming.below) } else { diff };
        if self.mode() == Mode::User {
            crate::userns::apply_owners(&draft.tree(), &owners)?;
        }
        let meta = LayerMeta {
            digest,
            size_bytes: report.bytes,
            files: report.files,
            skipped: report.skipped,
        };
        pins.add(&meta.digest);
        self.layers().keep(draft, &meta)?;
        Ok(meta)
    }

    /// The layer that unpacking `diff` on those `below` gives, when it is here; it stays.
    fn find_layer(&self, pins: &Pins, diff: &Digest, below: &[String]) -> Option<LayerMeta> {
        [diff.to_string(), adopted_digest(diff.as_str(), below)].iter().find_map(|digest| {
            pins.add(digest);
            self.layers().get(digest)
        })
    }

    /// Whether the last of these layers, lowest first, is here on those below it.
    pub(crate) fn is_here(&self, pins: &Pins, diffs: &[Digest]) -> bool {
        let mut below: Vec<String> = Vec::with_capacity(diffs.len());
        for diff in diffs {
            match self.find_layer(pins, diff, &below) {
                Some(meta) => below.push(meta.digest),
                None => return false,
            }
        }
        true
    }

    /// Makes the record of an image whose layers are here.
    pub(crate) fn record(
        &self,
        layers: &[LayerMeta],
        source: ImageSource,
        defaults: ImageDefaults,
        name: Option<ImageName>,
    ) -> Result<ImageInfo> {
        self.insert(Record {
            info: ImageInfo {
                id: ImageId::generate(),
                names: name.into_iter().collect(),
                source,
                layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
                size_bytes: layers.iter().map(|layer| layer.size_bytes).sum(),
                architecture: architecture().into(),
                defaults,
                created_at: Timestamp::now(),
                used_by: 0,
            },
            host_fingerprint: None,
            host_mounts: Vec::new(),
        })
    }

    pub(crate) fn import_blocking(
        &self,
        source: &ImportSource,
        name: Option<ImageName>,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        match source {
            ImportSource::Detect(path) => {
                let found = detect(path)?;
                self.import_blocking(&found, name, progress)
            }
            ImportSource::OciLayout(path) | ImportSource::DockerArchive(path) => {
                self.import_layout(path, name, progress)
            }
            ImportSource::RootfsTar(path) => {
                say(progress, format!("unpacking {}", path.display()));
                let file = open_input(path)?;
                self.import_rootfs(file, import("rootfs-tar"), plain_defaults(), name)
            }
            ImportSource::Directory(path) => self.import_directory(path, name, progress),
            ImportSource::Default { .. } | ImportSource::Debian { .. } => {
                Err(ImageError::Bad("Debian is made by its own path".into()))
            }
        }
    }

    fn import_layout(
        &self,
        path: &Path,
        name: Option<ImageName>,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        let unpacked;
        let dir = if path.is_dir() {
            path.to_path_buf()
        } else {
            say(progress, format!("reading {}", path.display()));
            unpacked = self.layers().draft()?;
            let limits =
                Limits { bytes: self.config().max_image_bytes, files: 100_000, time: LAYER_TIME };
            let expanded = stream::expand(open_input(path)?, u64::MAX)?;
            let owners = unpacked.owners();
            let options = Options {
                limits,
                whiteouts: Whiteouts::None,
                lowers: &[],
                // Who owned the files of the archive means nothing here.
                owners: Some(&owners),
            };
            unpack::unpack(expanded.reader, &unpacked.tree(), &options)?;
            unpacked.tree()
        };
        let found = layout::find(&dir, architecture(), name.as_ref().map(ImageName::as_str))?;
        check_config(&found.config, found.layers.len())?;
        let pins = self.pins();
        let mut layers: Vec<LayerMeta> = Vec::new();
        let mut below: Vec<String> = Vec::new();
        for ((file, blob), diff) in found.layers.iter().zip(&found.config.rootfs.diff_ids) {
            say(progress, format!("layer {} of {}", layers.len() + 1, found.layers.len()));
            let incoming = Incoming {
                blob: blob.as_ref(),
                diff: Some(diff),
                whiteouts: Whiteouts::Oci,
                below: &below,
            };
            let meta = self
                .take_layer(&pins, &incoming, || Ok(Box::new(layout::open_beneath(&dir, file)?)))?;
            below.push(meta.digest.clone());
            layers.push(meta);
        }
        self.record(&layers, import(found.format), found.config.defaults(), name)
    }

    pub(crate) fn import_rootfs(
        &self,
        input: impl Read + 'static,
        source: ImageSource,
        defaults: ImageDefaults,
        name: Option<ImageName>,
    ) -> Result<ImageInfo> {
        let pins = self.pins();
        let incoming = Incoming { blob: None, diff: None, whiteouts: Whiteouts::None, below: &[] };
        let meta = self.take_layer(&pins, &incoming, || Ok(Box::new(input)))?;
        if !["bin", "usr", "lib", "etc"].iter().any(|part| {
            match self.layers().tree(&meta.digest).join(part).symlink_metadata() {
                Ok(_) => true,
                // A root that is closed to all but its owner, who is another of this user's ids.
                Err(err) => err.kind() == io::ErrorKind::PermissionDenied,
            }
        }) {
            return Err(ImageError::Bad(
                "that is not a root filesystem: it has no bin, usr, lib or etc at its top".into(),
            ));
        }
        self.record(&[meta], source, defaults, name)
    }

    fn import_directory(
        &self,
        path: &Path,
        name: Option<ImageName>,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        if !path.is_dir() {
            return Err(ImageError::Bad(format!("{} is not a directory", path.display())));
        }
        say(progress, format!("copying {}", path.display()));
        let root = path.to_path_buf();
        let stream = tar_stream(move |out| {
            let mut archive = Retar::new(out, Origin::Plain);
            // What a running system mounts or keeps for itself.
            archive.leave_out(["proc", "sys", "dev", "run"].map(PathBuf::from).to_vec());
            archive.tree(&root, "")?;
            archive.finish().map(drop)
        })?;
        self.import_rootfs(stream, import("directory"), plain_defaults(), name)
    }
}

/// Tells formats apart by the names at their top.
fn detect(path: &Path) -> Result<ImportSource> {
    let owned = path.to_path_buf();
    if path.is_dir() {
        let layout = ["index.json", "manifest.json"].iter().any(|name| path.join(name).is_file());
        return Ok(if layout {
            ImportSource::OciLayout(owned)
        } else {
            ImportSource::Directory(owned)
        });
    }
    let expanded = stream::expand(open_input(path)?, u64::MAX)?;
    let mut archive = Archive::new(expanded.reader);
    while let Some(entry) = archive.next_entry()? {
        let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        match name.split(|byte| *byte == b'/').next().unwrap_or_default() {
            b"index.json" | b"manifest.json" | b"oci-layout" => {
                return Ok(ImportSource::OciLayout(owned));
            }
            b"bin" | b"etc" | b"lib" | b"usr" | b"sbin" => {
                return Ok(ImportSource::RootfsTar(owned));
            }
            _ => {}
        }
    }
    Ok(ImportSource::RootfsTar(owned))
}

/// The layers of an image whose configuration says how many there are.
pub(crate) fn check_config(config: &oci::ImageConfig, layers: usize) -> Result<()> {
    if config.rootfs.diff_ids.len() != layers {
        return Err(ImageError::Bad(format!(
            "the image has {layers} layers and its configuration names {}",
            config.rootfs.diff_ids.len()
        )));
    }
    if !config.os.is_empty() && config.os != "linux" {
        return Err(ImageError::Bad(format!("the image is for {:?}, not linux", config.os)));
    }
    if !config.architecture.is_empty() && config.architecture != architecture() {
        return Err(ImageError::Bad(format!(
            "the image is made for {:?}, this machine is {:?}",
            config.architecture,
            architecture()
        )));
    }
    Ok(())
}

fn check(what: &str, wanted: Option<&Digest>, found: &str) -> Result<()> {
    match wanted {
        Some(wanted) if wanted.as_str() != found => {
            Err(ImageError::Bad(format!("the {what} {wanted} has the digest {found} instead")))
        }
        _ => Ok(()),
    }
}

/// A layer that took files from below is another one on other layers.
fn adopted_digest(diff: &str, below: &[String]) -> String {
    let text = format!("pinfold adopted\n{diff}\n{}", below.join("\n"));
    Digest::of(text.as_bytes()).to_string()
}

fn import(format: &str) -> ImageSource {
    ImageSource::Import { format: format.into() }
}

fn plain_defaults() -> ImageDefaults {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    ImageDefaults {
        env: BTreeMap::from([("PATH".into(), path.into())]),
        command: vec!["/bin/sh".into()],
        ..ImageDefaults::default()
    }
}

fn open_input(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|err| {
        if err.kind() == io::ErrorKind::NotFound {
            ImageError::Public(Box::new(pinfold_types::Error::not_found("file", path.display())))
        } else {
            ImageError::io("open", path)(err)
        }
    })?;
    if file.metadata().map_err(ImageError::io("look at", path))?.is_dir() {
        return Err(ImageError::Bad(format!("{} is a directory, not an archive", path.display())));
    }
    Ok(file)
}

/// A tar that another thread writes while this one reads. The writer's error arrives as the
/// reader's.
pub(crate) fn tar_stream(
    write: impl FnOnce(io::BufWriter<io::PipeWriter>) -> Result<()> + Send + 'static,
) -> Result<impl Read + 'static> {
    let (reader, writer) = io::pipe().map_err(ImageError::io("make", "a pipe"))?;
    let failed = Arc::new(Mutex::new(None));
    let report = Arc::clone(&failed);
    let thread = std::thread::Builder::new()
        .name("retar".into())
        .spawn(move || {
            let out = io::BufWriter::with_capacity(128 << 10, writer);
            if let Err(err) = write(out) {
                *report.lock().unwrap_or_else(PoisonError::into_inner) = Some(err.to_string());
            }
        })
        .map_err(ImageError::io("start", "a thread"))?;
    Ok(Joined { reader, thread: Some(thread), failed })
}

struct Joined {
    reader: io::PipeReader,
    thread: Option<std::thread::JoinHandle<()>>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        if got == 0
            && !buffer.is_empty()
            && let Some(thread) = self.thread.take()
        {
            if thread.join().is_err() {
                return Err(io::Error::other("the archive's writer stopped"));
            }
            if let Some(why) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(io::Error::other(why));
            }
        }
        Ok(got)
    }
}
