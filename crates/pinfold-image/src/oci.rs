//! The documents of the OCI image specification and of Docker's formats, as far as they matter.

use std::fmt;

use pinfold_types::image::ImageDefaults;
use serde::{Deserialize, Serialize};

use crate::error::{ImageError, Result};

pub(crate) mod layout;

/// Longest manifest, index or configuration (distribution-spec asks for 4 MiB).
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of an image: overlayfs takes 500 lower directories, with room for steps on top.
pub(crate) const MAX_LAYERS: usize = 400;
/// Most entries of an index.
const MAX_MANIFESTS: usize = 1000;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    pub(crate) fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(format!("sha256:{}", crate::files::hex(&sha2::Sha256::digest(content))))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix("sha256:") {
            Some(digits) if digits.len() == 64 && digits.bytes().all(hex) => Ok(Self(text)),
            _ => Err(ImageError::Bad(format!(
                "{:?} is not a digest of the form sha256:<64 hexadecimal digits>",
                pinfold_types::name::excerpt(&text)
            ))),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Points to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// What an image of an index runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest or an index: which one is told by what it holds, as old writers leave the media
/// type out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<Descriptor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Descriptor>>,
}

/// A manifest's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

impl Document {
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let document: Self = serde_json::from_slice(text)
            .map_err(|err| ImageError::Bad(format!("the manifest is not valid: {err}")))?;
        if document.schema_version != 2 {
            return Err(ImageError::Bad(format!(
                "the manifest has schema version {}, only 2 is read",
                document.schema_version
            )));
        }
        Ok(document)
    }

    /// The image for this machine, when this is an index.
    pub(crate) fn select(&self, architecture: &str) -> Result<Option<&Descriptor>> {
        let Some(manifests) = &self.manifests else { return Ok(None) };
        if manifests.len() > MAX_MANIFESTS {
            return Err(ImageError::Limit(format!(
                "the index has more than {MAX_MANIFESTS} entries"
            )));
        }
        let fits = |entry: &&Descriptor| {
            entry
                .platform
                .as_ref()
                .is_some_and(|p| p.os == "linux" && p.architecture == architecture)
        };
        // One without a platform is for everybody, when it is alone.
        let found = manifests.iter().find(fits).or_else(|| match manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        });
        found.map(Some).ok_or_else(|| {
            let offered: Vec<String> = manifests
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .map(|p| format!("{}/{}", p.os, p.architecture))
                .take(20)
                .collect();
            ImageError::Bad(format!(
                "the image is not made for linux/{architecture}; it offers {}",
                if offered.is_empty() { "nothing".into() } else { offered.join(", ") }
            ))
        })
    }

    /// The parts of a manifest.
    pub(crate) fn into_manifest(self) -> Result<Manifest> {
        let (Some(config), Some(layers)) = (self.config, self.layers) else {
            return Err(ImageError::Bad("the manifest names no configuration or no layers".into()));
        };
        if layers.len() > MAX_LAYERS {
            return Err(ImageError::Limit(format!("the image has more than {MAX_LAYERS} layers")));
        }
        for layer in &layers {
            let media = layer.media_type.as_str();
            if !media.is_empty() && !media.contains("tar") {
                return Err(ImageError::Bad(format!(
                    "a part of the image is {media:?}, not a layer of files"
                )));
            }
        }
        Ok(Manifest { config, layers })
    }
}

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ImageConfig {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    pub config: Option<Runtime>,
    pub rootfs: RootFs,
}

/// Defaults for a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Runtime {
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
}

/// The layers' own digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|err| {
            ImageError::Bad(format!("the image's configuration is not valid: {err}"))
        })
    }

    /// In our words. Variables that are not `NAME=value`, and values with NUL, are left out.
    pub(crate) fn defaults(&self) -> ImageDefaults {
        let runtime = self.config.clone().unwrap_or_default();
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        ImageDefaults {
            env: runtime
                .env
                .unwrap_or_default()
                .iter()
                .filter(|line| !line.contains('\0'))
                .filter_map(|line| line.split_once('='))
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            cwd: some(runtime.working_dir).filter(|path| path.starts_with('/')),
            user: some(runtime.user),
            command: [runtime.entrypoint, runtime.cmd].into_iter().flatten().flatten().collect(),
        }
    }

    /// From our words.
    pub(crate) fn from_defaults(defaults: &ImageDefaults, architecture: &str) -> Self {
        Self {
            architecture: architecture.into(),
            os: "linux".into(),
            created: None,
            config: Some(Runtime {
                env: Some(defaults.env.iter().map(|(k, v)| format!("{k}={v}")).collect()),
                entrypoint: None,
                cmd: Some(defaults.command.clone()).filter(|command| !command.is_empty()),
                working_dir: defaults.cwd.clone(),
                user: defaults.user.clone(),
            }),
            rootfs: RootFs { kind: "layers".into(), diff_ids: Vec::new() },
        }
    }
}
