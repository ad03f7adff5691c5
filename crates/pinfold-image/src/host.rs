//! The image `host`: this machine's own `/usr`, read-only, under a skeleton of everything else
//! that programs expect.
//!
//! The skeleton is *made*, not copied. A file of the host's `/etc` enters it only when
//!
//! * it is a package's configuration file that still has the content the package shipped (dpkg
//!   recorded the MD5), so it says nothing about this machine; or
//! * it is on a short fixed list (trust store, linker cache, alternatives), world-readable, and
//!   free of key material.
//!
//! Everything else is generated: accounts, hosts, resolver, PAM, apt sources. So keys, machine
//! ids, users, mail, logs, sudo and cron rules, network set-up and credentials have no way in.
//! What nobody but root may read below `/usr`, and the site's own `/usr/etc` and
//! `/usr/local/etc`, is hidden by whiteouts in the skeleton's `usr`.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pinfold_types::{Error, image::ImageDefaults};
use sha2::{Digest, Sha256};

use crate::{
    error::{ImageError, Result},
    files,
    store::record::HostMount,
};

mod accounts;
pub(crate) mod apt;
mod dpkg;
mod etc;
mod mask;
mod texts;
mod var;

/// Raised whenever the rules below change, so that old skeletons are made again.
const RECIPE: &str = "pinfold host skeleton 1";

/// Directories at the root that a merged `/usr` replaces by links.
const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"];

/// Inputs whose change makes the skeleton old.
const WATCHED: [&str; 16] = [
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/local",
    "usr/share",
    "etc",
    "etc/alternatives",
    "etc/apt",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/debian_version",
    "etc/ld.so.cache",
    "etc/ssl/certs",
    "etc/ssl/certs/ca-certificates.crt",
    "etc/os-release",
    "var/lib/dpkg/status",
];

/// A machine to make the skeleton from: `/`, or a fake one in tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    root: &'a Path,
}

impl<'a> Host<'a> {
    pub(crate) const fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// Changes when the skeleton must be made again; cheap enough for every start.
    pub(crate) fn fingerprint(self) -> String {
        let mut hash = Sha256::new();
        hash.update(RECIPE);
        for name in WATCHED {
            hash.update(name);
            if let Ok(facts) = fs::symlink_metadata(self.root.join(name)) {
                hash.update(facts.len().to_be_bytes());
                hash.update(facts.ino().to_be_bytes());
                hash.update(facts.mtime().to_be_bytes());
                hash.update(facts.mtime_nsec().to_be_bytes());
            }
        }
        for name in MERGED {
            hash.update(name);
            if let Ok(target) = fs::read_link(self.root.join(name)) {
                hash.update(target.as_os_str().as_encoded_bytes());
            }
        }
        files::hex(&hash.finalize())
    }

    /// Directories of the host that the image shows: `/usr`, and on a host whose `/usr` is not
    /// merged the old places too.
    pub(crate) fn mounts(self) -> Vec<HostMount> {
        let mut mounts = vec![HostMount { target: "/usr".into(), source: self.root.join("usr") }];
        for name in MERGED {
            let path = self.root.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir()) {
                mounts.push(HostMount { target: format!("/{name}"), source: path });
            }
        }
        mounts
    }

    /// Makes the skeleton in the empty directory `tree`.
    pub(crate) fn build(self, tree: &Path, hide_private: bool) -> Result<()> {
        // Looking through all of `/usr` takes about as long as everything else.
        let (hidden, made) = std::thread::scope(|scope| {
            let search = scope.spawn(|| mask::find(self.root, hide_private));
            let made = self.skeleton(tree);
            (search.join(), made)
        });
        made?;
        let hidden =
            hidden.map_err(|_| Error::internal("the search for private files stopped"))??;
        mask::write(self.root, tree, &hidden)
    }

    fn skeleton(self, tree: &Path) -> Result<()> {
        self.roots(tree)?;
        let accounts = accounts::write(tree)?;
        let database = dpkg::Database::read(self.root)?;
        etc::write(self.root, tree, &database)?;
        apt::write(self.root, tree)?;
        var::write(self.root, tree, &accounts)
    }

    fn roots(self, tree: &Path) -> Result<()> {
        files::make_dir(tree, 0o755)?;
        for name in [
            "boot",
            "dev",
            "etc",
            "home",
            "media",
            "mnt",
            "opt",
            "proc",
            "run",
            "srv",
            "sys",
            "usr",
            "var",
            "workspace",
        ] {
            files::make_dir(&tree.join(name), 0o755)?;
        }
        files::make_dir(&tree.join("root"), 0o700)?;
        files::make_dir(&tree.join("tmp"), 0o1777)?;
        files::make_dir(&tree.join("run/lock"), 0o1777)?;
        for name in MERGED {
            let source = self.root.join(name);
            let Ok(facts) = fs::symlink_metadata(&source) else { continue };
            if facts.is_dir() {
                files::make_dir(&tree.join(name), 0o755)?;
            } else if facts.is_symlink() {
                let target = fs::read_link(&source).map_err(ImageError::io("read", &source))?;
                let plain = target.strip_prefix("/").unwrap_or(&target);
                if plain.starts_with("usr") {
                    files::make_link(plain, &tree.join(name))?;
                }
            }
        }
        Ok(())
    }
}

/// What commands get when nothing else is said.
pub(crate) fn defaults() -> ImageDefaults {
    ImageDefaults {
        env: [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LANG", "C.UTF-8"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        cwd: Some("/workspace".into()),
        user: None,
        command: vec!["/bin/bash".into()],
    }
}

/// Copies one file when everybody may read it and it holds no key.
fn copy_public_file(source: &Path, target: &Path) -> Result<bool> {
    const LIMIT: u64 = 64 << 20;
    let facts = fs::symlink_metadata(source).map_err(ImageError::io("look at", source))?;
    if !facts.is_file() || facts.mode() & 0o004 == 0 || facts.len() > LIMIT {
        return Ok(false);
    }
    let content = files::read_bounded(source, LIMIT)?;
    if holds_key(&content) {
        return Ok(false);
    }
    files::write_file(target, &content, facts.mode() & 0o755)?;
    Ok(true)
}

/// Whether a file looks like a private key (RFC 7468 labels, `OpenSSH`, `PuTTY`).
fn holds_key(content: &[u8]) -> bool {
    [&b"PRIVATE KEY-----"[..], b"PuTTY-User-Key-File"]
        .iter()
        .any(|mark| memchr::memmem::find(content, mark).is_some())
}

/// Sorted entries of a directory; empty when it is not there.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}
