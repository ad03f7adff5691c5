//! The root filesystem that all candidates share: a handful of this machine's programs with the
//! libraries they need, so that no network and no package list is part of the comparison.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

const PROGRAMS: &[&str] = &["cat", "dd", "echo", "head", "mkdir", "sh", "sleep", "sync", "true"];
const DIRECTORIES: &[&str] = &["dev", "etc", "proc", "root", "run", "sys", "tmp", "var"];

/// A directory tree, removed on drop, and a scratch directory on the same filesystem.
#[derive(Debug)]
pub(crate) struct Root {
    base: tempfile::TempDir,
}

impl Root {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("pf-bench-").tempdir()?;
        // Mapped ids walk through here.
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o711))?;
        let root = Self { base };
        for directory in DIRECTORIES.iter().map(|name| root.tree().join(name)) {
            fs::create_dir_all(&directory)?;
        }
        fs::set_permissions(root.tree().join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::create_dir_all(root.tree().join("bin"))?;
        fs::create_dir_all(root.scratch())?;
        let mut libraries = BTreeSet::new();
        for name in PROGRAMS {
            let from = Path::new("/bin").join(name);
            fs::copy(&from, root.tree().join("bin").join(name))
                .with_context(|| from.display().to_string())?;
            libraries.extend(needed(&from)?);
        }
        for library in libraries {
            let to = root.tree().join(library.strip_prefix("/").unwrap_or(&library));
            fs::create_dir_all(to.parent().context("a library lies in a directory")?)?;
            fs::copy(&library, &to).with_context(|| library.display().to_string())?;
        }
        fs::write(root.tree().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(root.tree().join("etc/group"), "root:x:0:\n")?;
        Ok(root)
    }

    /// The root filesystem.
    pub(crate) fn tree(&self) -> PathBuf {
        self.base.path().join("root")
    }

    /// Room for upper layers and bundles.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.base.path().join("scratch")
    }
}

/// Paths that the loader would open.
fn needed(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    ensure!(output.status.success(), "ldd {} failed", program.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
