//! The files of the log and their names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::error::AuditError;

/// Most segments that a log may have: a listing is bounded.
const MAX_SEGMENTS: usize = 100_000;

/// One file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// Number of its first record, as its name says.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

impl Segment {
    pub(crate) fn new(dir: &Path, first: u64) -> Self {
        Self { first, path: dir.join(format!("{first:010}.jsonl")) }
    }

    /// As a finding names it: below the home.
    pub(crate) fn shown(&self) -> PathBuf {
        Path::new("audit").join(self.path.file_name().unwrap_or_default())
    }
}

/// All segments, oldest first. Other files are not looked at.
pub(crate) fn list(dir: &Path) -> Result<Vec<Segment>, AuditError> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(err) => return Err(AuditError::file("list", dir)(err)),
    };
    for entry in entries {
        let name = entry.map_err(AuditError::file("list", dir))?.file_name();
        let Some(digits) = name.to_str().and_then(|name| name.strip_suffix(".jsonl")) else {
            continue;
        };
        let Ok(first) = digits.parse() else { continue };
        let segment = Segment::new(dir, first);
        if segment.path.file_name() == Some(&name) {
            found.push(segment);
        }
        if found.len() > MAX_SEGMENTS {
            return Err(AuditError::BadValue(format!(
                "{} has more than {MAX_SEGMENTS} segments, which is the limit",
                dir.display()
            )));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Segments that a crash left half made: they never had their name.
pub(crate) fn drafts(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let entries = fs::read_dir(dir).map_err(AuditError::file("list", dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut found: Vec<_> =
        paths.collect::<Result<_, _>>().map_err(AuditError::file("list", dir))?;
    found.retain(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".jsonl.new"))
    });
    Ok(found)
}
