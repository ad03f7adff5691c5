//! Images to archives that other tools read.

use std::{
    io::{self, Write},
    path::Path,
};

use pinfold_types::{Error, ErrorCode, ImageId, Mode};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{ImageError, Result},
    files,
    oci::{Descriptor, Digest, Document, ImageConfig, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST},
    retar::{Origin, Retar},
    store::ImageStore,
};

impl ImageStore {
    /// Writes one tar that is both an OCI image layout and what `docker load` reads: the same
    /// bytes for the same image. An image that stands on `host` cannot leave, because what it
    /// shows of this machine's `/usr` is not part of it.
    pub fn export(&self, id: &ImageId, out: &mut (impl Write + ?Sized)) -> Result<(), Error> {
        let record = self.record_of(id)?;
        if !record.host_mounts.is_empty() {
            return Err(Error::new(
                ErrorCode::Unprocessable,
                "an image that stands on this machine's own /usr cannot be exported",
            )
            .hint("build it FROM a Debian image instead: pinfold image import debian:bookworm"));
        }
        let info = &record.info;
        let trees: Vec<_> = info.layers.iter().map(|digest| self.layers().tree(digest)).collect();
        let name = info.names.first().map(ToString::to_string);
        let config = ImageConfig::from_defaults(&info.defaults, &info.architecture);
        Ok(write(self.mode(), &trees, config, name.as_deref(), out)?)
    }
}

fn write<W: Write + ?Sized>(
    mode: Mode,
    trees: &[std::path::PathBuf],
    mut config: ImageConfig,
    name: Option<&str>,
    out: &mut W,
) -> Result<()> {
    let mut archive = Retar::new(out, Origin::Plain);
    archive.content("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
    let mut layers: Vec<Descriptor> = Vec::new();
    for tree in trees {
        // Twice over the tree: the digest stands in front of the bytes it names.
        let mut hash = Hashing::default();
        layer(mode, tree, &mut hash)?;
        let digest = hash.digest()?;
        let path = format!("blobs/sha256/{}", digest.hex());
        if !layers.iter().any(|known| known.digest == digest) {
            let from = tree.clone();
            let stream = crate::import::tar_stream(move |mut pipe| layer(mode, &from, &mut pipe))?;
            archive.stream(&path, hash.count, stream)?;
        }
        config.rootfs.diff_ids.push(digest.clone());
        layers.push(descriptor(OCI_LAYER, digest, hash.count));
    }
    let mut blob = |media: &str, content: Vec<u8>| -> Result<Descriptor> {
        let digest = Digest::of(&content);
        archive.content(&format!("blobs/sha256/{}", digest.hex()), &content)?;
        Ok(descriptor(media, digest, content.len() as u64))
    };
    let json = |value: &dyn erased::Json| value.bytes();
    let config = blob(OCI_CONFIG, json(&config))?;
    let docker = serde_json::json!([{
        "Config": format!("blobs/sha256/{}", config.digest.hex()),
        "RepoTags": name.map(tagged).into_iter().collect::<Vec<_>>(),
        "Layers": layers
            .iter()
            .map(|layer| format!("blobs/sha256/{}", layer.digest.hex()))
            .collect::<Vec<_>>(),
    }]);
    let manifest = Document {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.into()),
        config: Some(config),
        layers: Some(layers),
        manifests: None,
    };
    let mut manifest = blob(OCI_MANIFEST, json(&manifest))?;
    if let Some(name) = name {
        let key = "org.opencontainers.image.ref.name".to_owned();
        manifest.annotations = Some([(key, name.to_owned())].into());
    }
    let index =
        Document { schema_version: 2, manifests: Some(vec![manifest]), ..Document::default() };
    archive.content("index.json", &json(&index))?;
    archive.content("manifest.json", &json(&docker))?;
    archive.finish().map(drop)
}

/// `docker load` wants a tag.
fn tagged(name: &str) -> String {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => name.to_owned(),
        _ => format!("{name}:latest"),
    }
}

fn layer(mode: Mode, tree: &Path, out: &mut impl Write) -> Result<()> {
    let mut archive = Retar::new(out, Origin::Upper);
    archive.tree_as(mode, tree, "")?;
    archive.finish().map(drop)
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.into(), digest, size, platform: None, annotations: None }
}

/// Serialising what we made ourselves.
mod erased {
    use serde::Serialize;

    pub(super) trait Json {
        fn bytes(&self) -> Vec<u8>;
    }

    impl<T: Serialize> Json for T {
        fn bytes(&self) -> Vec<u8> {
            serde_json::to_vec(self).expect("our own documents serialise")
        }
    }
}

/// Counts and hashes, keeps nothing.
#[derive(Debug, Default)]
struct Hashing {
    hash: Sha256,
    count: u64,
}

impl Hashing {
    fn digest(&self) -> Result<Digest> {
        Digest::try_from(format!("sha256:{}", files::hex(&self.hash.clone().finalize())))
            .map_err(|_| ImageError::Bad("a digest of ours is malformed".into()))
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.count += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
