//! The checked-out tree and its history.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// File, `file:line`, crate or commit.
    pub(crate) place: String,
    /// What the rule says and what was found.
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    pub(crate) fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// The repository that this program was started in.
#[derive(Debug)]
pub(crate) struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The workspace that holds this program's own manifest.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask lies in the workspace")?.to_path_buf();
        ensure!(root.join("Cargo.toml").is_file(), "{} is not the workspace", root.display());
        Ok(Self { root })
    }

    /// A path in the tree.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A program with the tree as its directory.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// What a program prints; an error when it fails.
    pub(crate) fn output(&self, program: &str, words: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = self
            .command(program)
            .args(words)
            .output()
            .with_context(|| format!("{program} could not be started"))?;
        ensure!(
            output.status.success(),
            "{program} {} failed: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    /// Files that are tracked or would be if added, sorted; deleted ones are left out.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<String>> {
        let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let mut files: Vec<String> = String::from_utf8(self.output("git", &words)?)
            .context("a file name is not UTF-8")?
            .split('\0')
            .filter(|name| !name.is_empty() && self.path(name).is_file())
            .map(str::to_owned)
            .collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// A file as text; bytes that are not UTF-8 are replaced.
    pub(crate) fn text(&self, relative: &str) -> anyhow::Result<String> {
        let bytes = std::fs::read(self.path(relative)).with_context(|| relative.to_owned())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Every Rust source file with its text.
    pub(crate) fn rust_files(&self) -> anyhow::Result<Vec<(String, String)>> {
        self.files()?
            .into_iter()
            .filter(|path| has_ending(path, "rs"))
            .map(|path| {
                let text = self.text(&path)?;
                Ok((path, text))
            })
            .collect()
    }
}

/// Whether the path ends in `.ending`.
pub(crate) fn has_ending(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == ending)
}
