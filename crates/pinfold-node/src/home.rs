//! Where a node keeps its things below `$PINFOLD_HOME`.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use pinfold_types::{Error, ErrorCode, Result, WorkspaceId};

/// The directories of one home.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    root: PathBuf,
    tag: String,
}

impl Home {
    /// Makes what is missing, 0700.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        make_dir(root)?;
        let root = root
            .canonicalize()
            .map_err(|err| Error::internal(format!("{}: {err}", root.display())))?;
        let home = Self { tag: home_tag(&root), root };
        make_dir(&home.runs())?;
        make_dir(&home.images())?;
        // Uploads end with the request that brought them.
        let _ = fs::remove_dir_all(home.uploads());
        make_dir(&home.uploads())?;
        Ok(home)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Eight hexadecimal digits that tell this home's cgroups and processes from another's.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where uploads lie while they are read.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The directory of a workspace's present boot.
    pub(crate) fn run(&self, id: WorkspaceId) -> PathBuf {
        self.runs().join(id.to_string())
    }

    /// The guest's listening socket.
    pub(crate) fn socket(&self, id: WorkspaceId) -> PathBuf {
        self.run(id).join("guest.sock")
    }

    /// The first process of a workspace's boot, as the launcher wrote it down where there is no
    /// cgroup to find it by: its pid and start time.
    pub(crate) fn first_process(&self, id: WorkspaceId) -> Option<(i32, u64)> {
        let text = fs::read_to_string(self.run(id).join(pinfold_namespace::FIRST_PROCESS)).ok()?;
        let (pid, start_time) = text.trim().split_once(' ')?;
        Some((pid.parse().ok()?, start_time.parse().ok()?))
    }

    /// Makes the directory of a boot, empty.
    pub(crate) fn make_run(&self, id: WorkspaceId) -> Result<()> {
        let dir = self.run(id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => Ok(()),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_run(id);
                make_dir(&dir)
            }
            Err(err) => Err(cannot_make(&dir, &err)),
        }
    }

    /// Removes the directory of a boot. Nothing happens when it is gone.
    pub(crate) fn remove_run(&self, id: WorkspaceId) {
        let dir = self.run(id);
        match fs::remove_dir_all(&dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %err, "a run directory could not be removed");
            }
            _ => {}
        }
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|err| cannot_make(dir, &err))
}

fn cannot_make(dir: &Path, err: &io::Error) -> Error {
    let code = match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => ErrorCode::Unavailable,
    };
    Error::new(code, format!("the directory {} cannot be made: {err}", dir.display()))
        .hint("see that $PINFOLD_HOME is yours and that its disk is not full")
}

/// Eight hexadecimal digits that tell a home's cgroups from another's: FNV-1a (RFC 9923) over its
/// canonical path, so that every server of the home finds the same.
pub fn home_tag(root: &Path) -> String {
    let hash =
        root.as_os_str().as_encoded_bytes().iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    format!("{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_differ_by_path_and_stay_the_same() {
        assert_eq!(home_tag(Path::new("/a")), home_tag(Path::new("/a")));
        assert_ne!(home_tag(Path::new("/a")), home_tag(Path::new("/b")));
        assert_eq!(home_tag(Path::new("/var/lib/pinfold")).len(), 8);
    }
}
