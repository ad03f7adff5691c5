//! Images as callers ask for them and see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorCode, ImageId, ImageName, ImageReference, limits::MAX_PATH_BYTES, name::excerpt,
    object::object, schema,
};

/// Most bytes of a file of steps.
pub const MAX_STEPS_BYTES: usize = 1 << 20;
/// Most Debian packages of one import.
pub const MAX_PACKAGES: usize = 4096;

/// Where an image came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ImageSource {
    /// This machine's own `/usr`, read-only.
    Host,
    /// Made by mmdebstrap or debootstrap.
    Debian {
        /// Release code name.
        suite: String,
    },
    /// Pulled from a registry.
    Registry {
        /// As asked for.
        reference: String,
        /// Manifest digest, `sha256:…`.
        digest: String,
    },
    /// Imported from an archive, OCI layout or directory.
    Import {
        /// What kind: `oci-layout`, `docker-archive`, `rootfs-tar`, `directory`.
        format: String,
    },
    /// Built from steps.
    Template {
        /// Digest of the steps.
        steps_digest: String,
    },
}

/// Defaults an image brings for commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageDefaults {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Directory.
    pub cwd: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Entry point and command joined, used when `run` is given no command.
    pub command: Vec<String>,
}

/// An image as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageInfo {
    /// Id.
    pub id: ImageId,
    /// Names that point to it.
    pub names: Vec<ImageName>,
    /// Where it came from.
    pub source: ImageSource,
    /// Layer digests, lowest first.
    pub layers: Vec<String>,
    /// Unpacked size of its own layers.
    pub size_bytes: u64,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// Defaults for commands.
    pub defaults: ImageDefaults,
    /// When it was made here.
    pub created_at: Timestamp,
    /// Workspaces and snapshots that stand on it.
    #[serde(default)]
    pub used_by: u64,
}

/// A step of long image work, streamed to the caller as one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum ImageProgress {
    /// A phase begins.
    Step {
        /// What is done.
        message: String,
    },
    /// Bytes done of the named part.
    Bytes {
        /// Layer digest or file name.
        part: String,
        /// Done.
        done_bytes: u64,
        /// In all, when known.
        total_bytes: Option<u64>,
    },
    /// Things done of many.
    Count {
        /// What is done, for people.
        what: String,
        /// Done.
        done: u64,
        /// In all, as far as is known by now.
        total: u64,
    },
    /// A line of a build step's output.
    Output {
        /// Text, lossy UTF-8.
        text: String,
    },
    /// The end.
    Done {
        /// The image.
        image: Box<ImageInfo>,
    },
    /// The end, without an image.
    Failed {
        /// Why.
        error: crate::Error,
    },
}

/// Fetches an image from a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PullImage {
    /// Registry reference; the default registry is Docker's, the default tag `latest`. With a
    /// digest, the tag is not looked at.
    pub image: ImageReference,
    /// Name here. Default: the reference without its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ImageName>,
}

/// What an imported file or directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImportFormat {
    /// An OCI image layout: a directory, or a tar of one.
    OciLayout,
    /// What `docker save` writes.
    DockerArchive,
    /// A tar of a root filesystem, plain or compressed.
    RootfsTar,
    /// A directory that is a root filesystem.
    Directory,
}

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "from", deny_unknown_fields)]
pub enum ImportFrom {
    /// A file or directory of the server's machine, readable by the server's user.
    Path {
        /// Absolute path on the host.
        #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
        path: String,
        /// What it is. Absent: found out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<ImportFormat>,
    },
    /// The request's body, a tar.
    Upload {
        /// What it is. Absent: found out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<ImportFormat>,
    },
    /// A Debian release, by mmdebstrap or debootstrap.
    Debian {
        /// Release code name.
        #[schemars(regex(pattern = schema::DEBIAN_NAME), length(min = 1, max = 128))]
        suite: String,
        /// Packages beyond the least.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = MAX_PACKAGES), inner(regex(pattern = schema::DEBIAN_NAME), length(min = 1, max = 128)))]
        packages: Vec<String>,
        /// Archive, `http` or `https`. Absent: the configured one, else those of this machine's
        /// apt, else Debian's own. One on a private network must be configured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = schema::MIRROR), length(max = 2048))]
        mirror: Option<String>,
    },
    /// What agents' ordinary work needs: a Debian with Python, Node, git, a compiler and small
    /// tools, and the user `agent`.
    Default {
        /// As for `debian`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = schema::MIRROR), length(max = 2048))]
        mirror: Option<String>,
    },
}

/// Makes an image of something that is not one yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportImage {
    /// Its name.
    pub name: ImageName,
    /// What it is made of.
    #[serde(deserialize_with = "object")]
    pub source: ImportFrom,
}

/// Where the files that steps copy come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "from", deny_unknown_fields)]
pub enum BuildContext {
    /// Nothing is copied.
    #[default]
    Nothing,
    /// A directory of the server's machine, readable by the server's user.
    Path {
        /// Absolute path on the host.
        #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
        path: String,
    },
    /// The request's body, a tar of a directory.
    Upload,
}

/// Makes an image from a file of steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildImage {
    /// Its name.
    pub name: ImageName,
    /// Text of the file of steps.
    #[schemars(length(max = MAX_STEPS_BYTES))]
    pub steps: String,
    /// Files to copy from.
    #[serde(default, deserialize_with = "object")]
    pub context: BuildContext,
    /// Run every step again, whatever the cache holds.
    #[serde(default)]
    pub no_cache: bool,
}

fn refuse(why: String) -> Result<(), Error> {
    Err(Error::new(ErrorCode::InvalidArgument, why))
}

fn check_host_path(path: &str) -> Result<(), Error> {
    if path.starts_with('/') && path.len() < 4096 && !path.contains('\0') {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidPath,
        format!("{:?} is not an absolute path of at most 4095 bytes", excerpt(path)),
    ))
}

/// Debian's rule for names of packages and releases (Debian Policy §5.6.1), with `=VERSION` and
/// `:ARCH` left out.
fn is_debian_name(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')
        })
}

fn check_mirror(mirror: Option<&str>) -> Result<(), Error> {
    match mirror {
        Some(url)
            if url.len() > 2048
                || !(url.starts_with("http://") || url.starts_with("https://"))
                || url.bytes().any(|b| b <= b' ' || b == 0x7f) =>
        {
            refuse(format!("{:?} is not the URL of a mirror", excerpt(url)))
        }
        _ => Ok(()),
    }
}

impl ImportImage {
    /// Checks everything that needs no machine.
    pub fn check(&self) -> Result<(), Error> {
        if let ImportFrom::Debian { mirror, .. } | ImportFrom::Default { mirror } = &self.source {
            check_mirror(mirror.as_deref())?;
        }
        match &self.source {
            ImportFrom::Path { path, .. } => check_host_path(path),
            ImportFrom::Upload { .. } | ImportFrom::Default { .. } => Ok(()),
            ImportFrom::Debian { suite, .. } if !is_debian_name(suite) => {
                refuse(format!("{:?} is not a Debian release", excerpt(suite)))
            }
            ImportFrom::Debian { packages, .. } if packages.len() > MAX_PACKAGES => {
                refuse(format!("more than {MAX_PACKAGES} packages"))
            }
            ImportFrom::Debian { packages, .. } => {
                match packages.iter().find(|name| !is_debian_name(name)) {
                    Some(bad) => refuse(format!("{:?} is not a Debian package", excerpt(bad))),
                    None => Ok(()),
                }
            }
        }
    }
}

impl BuildImage {
    /// Checks everything that needs no machine.
    pub fn check(&self) -> Result<(), Error> {
        if self.steps.len() > MAX_STEPS_BYTES {
            return refuse(format!("the steps are longer than {MAX_STEPS_BYTES} bytes"));
        }
        match &self.context {
            BuildContext::Path { path } => check_host_path(path),
            BuildContext::Nothing | BuildContext::Upload => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_that_cannot_be_are_refused() {
        let import = |source| ImportImage { name: "a".parse().expect("a name"), source }.check();
        let debian = |suite: &str, package: &str| {
            let packages = vec![package.into()];
            import(ImportFrom::Debian { suite: suite.into(), packages, mirror: None })
        };
        let default = |mirror: &str| import(ImportFrom::Default { mirror: Some(mirror.into()) });
        assert!(default("http://ftp.de.debian.org/debian").is_ok());
        for mirror in ["", "ftp.de.debian.org", "file:/srv", "http://a b", "http://a\n"] {
            assert!(default(mirror).is_err(), "{mirror:?}");
        }
        assert!(debian("bookworm", "g++").is_ok());
        for (suite, package) in
            [("--help", "git"), ("../x", "git"), ("", "git"), ("sid", "-y"), ("sid", "a b")]
        {
            assert!(debian(suite, package).is_err(), "{suite} {package}");
        }
        let path = |path: &str| import(ImportFrom::Path { path: path.into(), format: None });
        assert!(path("/srv/image.tar").is_ok());
        assert!(path("image.tar").is_err() && path("/a\0b").is_err());
    }
}
