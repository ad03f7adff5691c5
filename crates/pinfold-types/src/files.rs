//! Requests about files inside a workspace. Reads take them as a query, changes as a body.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, exec::check_path, limits::MAX_PATH_BYTES, schema};

/// Most entries of one page of a directory.
pub const MAX_LIST: u32 = 1000;
/// Permission bits that exist, set-id and sticky included.
pub const MAX_MODE: u32 = 0o7777;

fn check_mode(mode: Option<u32>) -> Result<(), Error> {
    match mode {
        Some(mode) if mode > MAX_MODE => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("a mode of {mode:o} has bits outside {MAX_MODE:o}"),
        )),
        _ => Ok(()),
    }
}

fn check_place(field: &str, value: Option<u64>) -> Result<(), Error> {
    // A file offset is signed in the kernel (off_t).
    match value {
        Some(value) if i64::try_from(value).is_err() => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("{field} of {value} is beyond the largest file"),
        )),
        _ => Ok(()),
    }
}

/// Names one path: stat, and an archive to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePath {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
}

impl FilePath {
    /// Refuses paths that are not usable.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)
    }
}

/// One page of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListFiles {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// Name after which the page begins, from an earlier page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::FILE_NAME), length(max = 255))]
    pub after: Option<String>,
    /// 1 to [`MAX_LIST`], which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_LIST))]
    pub limit: Option<u32>,
}

impl ListFiles {
    /// Refuses wild values.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)?;
        if self.limit.is_some_and(|limit| !(1..=MAX_LIST).contains(&limit)) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("limit must be 1 to {MAX_LIST}"),
            ));
        }
        if self.after.as_ref().is_some_and(|name| name.len() > 255 || name.contains(['/', '\0'])) {
            return Err(Error::new(ErrorCode::InvalidArgument, "after is not a file name"));
        }
        Ok(())
    }
}

/// A file's bytes, whole or a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// First byte wanted, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = i64::MAX))]
    pub offset: Option<u64>,
    /// Most bytes wanted; absent means to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = i64::MAX))]
    pub length: Option<u64>,
}

impl ReadFile {
    /// Refuses wild values.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)?;
        check_place("offset", self.offset)?;
        check_place("length", self.length)
    }
}

/// Writes a file: the bytes are the request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// Write into the file from here. Absent: the whole file is replaced at once, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = i64::MAX))]
    pub offset: Option<u64>,
    /// Permission bits, a decimal number. Absent: the old file's, or 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_MODE))]
    pub mode: Option<u32>,
    /// Make missing directories.
    #[serde(default)]
    pub parents: bool,
}

impl WriteFile {
    /// Refuses wild values.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)?;
        check_place("offset", self.offset)?;
        check_mode(self.mode)
    }
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeDirectory {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// Permission bits, default 0o755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_MODE))]
    pub mode: Option<u32>,
    /// Make missing directories above it, and be content when it exists.
    #[serde(default)]
    pub parents: bool,
}

impl MakeDirectory {
    /// Refuses wild values.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)?;
        check_mode(self.mode)
    }
}

/// Moves a file or directory within its filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameFile {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub from: String,
    /// Absolute path inside; a file there is replaced.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub to: String,
}

impl RenameFile {
    /// Refuses paths that are not usable.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.from)?;
        check_path(&self.to)
    }
}

/// Removes a file or directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveFile {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::PATH_BELOW_ROOT), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// Remove a directory with all in it.
    #[serde(default)]
    pub recursive: bool,
}

impl RemoveFile {
    /// Refuses paths that are not usable, and the root.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)?;
        if self.path.split('/').all(|part| part.is_empty() || part == ".") {
            return Err(Error::new(ErrorCode::InvalidPath, "the root itself cannot be removed")
                .hint("to remove the workspace: pinfold rm"));
        }
        Ok(())
    }
}

/// Changes permission bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMode {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// Permission bits, 0 to 0o7777.
    #[schemars(range(max = MAX_MODE))]
    pub mode: u32,
}

impl ChangeMode {
    /// Refuses wild values.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)?;
        check_mode(Some(self.mode))
    }
}

/// Watches a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchFiles {
    /// Absolute path inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// Directories below it too.
    #[serde(default)]
    pub recursive: bool,
}

impl WatchFiles {
    /// Refuses paths that are not usable.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)
    }
}

/// Unpacks a tar archive: it is the request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteArchive {
    /// Absolute path of the directory inside.
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = MAX_PATH_BYTES))]
    pub path: String,
    /// Owners from the archive; else all is root's.
    #[serde(default)]
    pub owners: bool,
    /// Make the directory when it is missing.
    #[serde(default)]
    pub create: bool,
}

impl WriteArchive {
    /// Refuses paths that are not usable.
    pub fn check(&self) -> Result<(), Error> {
        check_path(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wild_values_are_refused() {
        let read = |offset, length| ReadFile { path: "/a".into(), offset, length }.check();
        assert!(read(Some(1 << 62), None).is_ok());
        assert!(read(Some(1 << 63), None).is_err());
        assert!(read(None, Some(u64::MAX)).is_err());
        assert!(ChangeMode { path: "/a".into(), mode: 0o7777 }.check().is_ok());
        assert!(ChangeMode { path: "/a".into(), mode: 0o10000 }.check().is_err());
        for root in ["/", "//", "/.", "/./"] {
            assert!(RemoveFile { path: root.into(), recursive: true }.check().is_err(), "{root}");
        }
        assert!(RemoveFile { path: "/a".into(), recursive: true }.check().is_ok());
        assert!(RenameFile { from: "/a".into(), to: "b".into() }.check().is_err());
        let list = |limit| ListFiles { path: "/a".into(), after: None, limit }.check();
        assert!(list(None).is_ok() && list(Some(0)).is_err() && list(Some(1001)).is_err());
    }
}
