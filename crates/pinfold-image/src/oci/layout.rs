//! An OCI image layout or an unpacked `docker save` archive: a directory with blobs.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde::Deserialize;

use super::{Descriptor, Digest, Document, ImageConfig, MAX_DOCUMENT_BYTES, MAX_LAYERS};
use crate::error::{ImageError, Result};

/// How deep indexes may point to indexes.
const MAX_INDEX_DEPTH: u32 = 3;

/// An image in a directory.
#[derive(Debug)]
pub(crate) struct Found {
    pub config: ImageConfig,
    /// Where each layer's bytes are, lowest first, with the blob's digest where one is known.
    pub layers: Vec<(PathBuf, Option<Digest>)>,
    /// `oci-layout` or `docker-archive`.
    pub format: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Opens a regular file below `dir`; links may not lead out (`openat2(2)`).
pub(crate) fn open_beneath(dir: &Path, name: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(ImageError::errno("open", dir))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file =
        openat2(&root, name, flags, Mode::empty(), resolve).map(File::from).map_err(|_| {
            ImageError::Bad(format!("the image lacks its part {:?}", name.display().to_string()))
        })?;
    let facts = file.metadata().map_err(ImageError::io("look at", name))?;
    if !facts.is_file() {
        return Err(ImageError::Bad(format!("{:?} is not a file", name.display().to_string())));
    }
    Ok(file)
}

fn document(dir: &Path, name: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    open_beneath(dir, name)?
        .take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(ImageError::io("read", name))?;
    if text.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(ImageError::Limit(format!(
            "{} is longer than {MAX_DOCUMENT_BYTES} bytes",
            name.display()
        )));
    }
    Ok(text)
}

fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

fn blob(dir: &Path, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let text = document(dir, &blob_path(&descriptor.digest))?;
    if Digest::of(&text) != descriptor.digest {
        return Err(ImageError::Bad(format!("{} does not match its digest", descriptor.digest)));
    }
    Ok(text)
}

/// Finds the image for `architecture`. `tag` chooses among several.
pub(crate) fn find(dir: &Path, architecture: &str, tag: Option<&str>) -> Result<Found> {
    if dir.join("manifest.json").is_file() {
        return docker(dir, tag);
    }
    if dir.join("index.json").is_file() {
        return layout(dir, architecture, tag);
    }
    Err(ImageError::Bad(
        "there is neither index.json (OCI layout) nor manifest.json (docker save) in it".into(),
    ))
}

fn layout(dir: &Path, architecture: &str, tag: Option<&str>) -> Result<Found> {
    let mut current = Document::parse(&document(dir, Path::new("index.json"))?)?;
    if let (Some(tag), Some(manifests)) = (tag, &mut current.manifests) {
        let named = |entry: &Descriptor| {
            entry
                .annotations
                .as_ref()
                .and_then(|notes| notes.get("org.opencontainers.image.ref.name"))
                .is_some_and(|name| name == tag)
        };
        if manifests.iter().any(named) {
            manifests.retain(named);
        }
    }
    for _ in 0..MAX_INDEX_DEPTH {
        // A layout with one image need not say what it is for: its configuration does.
        let next = match current.manifests.as_deref() {
            Some([only]) => Some(only.clone()),
            _ => current.select(architecture)?.cloned(),
        };
        let Some(next) = next else { break };
        current = Document::parse(&blob(dir, &next)?)?;
    }
    let manifest = current.into_manifest()?;
    let config = ImageConfig::parse(&blob(dir, &manifest.config)?)?;
    let layers = manifest
        .layers
        .into_iter()
        .map(|layer| (blob_path(&layer.digest), Some(layer.digest)))
        .collect();
    Ok(Found { config, layers, format: "oci-layout" })
}

fn docker(dir: &Path, tag: Option<&str>) -> Result<Found> {
    let text = document(dir, Path::new("manifest.json"))?;
    let entries: Vec<DockerEntry> = serde_json::from_slice(&text)
        .map_err(|err| ImageError::Bad(format!("manifest.json is not valid: {err}")))?;
    let tagged = |entry: &&DockerEntry| {
        let tags = entry.repo_tags.as_deref().unwrap_or_default();
        tag.is_some_and(|tag| tags.iter().any(|known| known == tag))
    };
    let entry = match entries.as_slice() {
        [only] => only,
        [] => return Err(ImageError::Bad("manifest.json names no image".into())),
        several => several.iter().find(tagged).ok_or_else(|| {
            ImageError::Bad(format!(
                "the archive holds {} images; name one of their tags",
                several.len()
            ))
        })?,
    };
    if entry.layers.len() > MAX_LAYERS {
        return Err(ImageError::Limit(format!("the image has more than {MAX_LAYERS} layers")));
    }
    let config_text = document(dir, Path::new(&entry.config))?;
    // The file is named by its digest, in both generations of the format.
    let stem = Path::new(&entry.config).file_stem().unwrap_or_default().to_string_lossy();
    if stem.len() == 64 && Digest::of(&config_text).hex() != stem {
        return Err(ImageError::Bad("the configuration does not match its digest".into()));
    }
    Ok(Found {
        config: ImageConfig::parse(&config_text)?,
        layers: entry.layers.iter().map(|name| (PathBuf::from(name), None)).collect(),
        format: "docker-archive",
    })
}
