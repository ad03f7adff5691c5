//! Small file operations that several parts of this room share. They act on trees that this
//! process made itself; untrusted archives go through `unpack` instead.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

use serde::Serialize;

use crate::error::{ImageError, Result};

/// Makes a directory with exactly this mode, whatever the umask. Fine if it is there already.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(err) => return Err(ImageError::io("make the directory", path)(err)),
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(ImageError::io("set the mode of", path))
}

/// Makes `path` and its missing parents below `root`, each 0755.
pub(crate) fn make_dirs(root: &Path, path: &Path) -> Result<()> {
    let relative = path.strip_prefix(root).expect("the caller joins below root");
    let mut at = root.to_path_buf();
    for part in relative.components() {
        at.push(part);
        if !at.is_dir() {
            make_dir(&at, 0o755)?;
        }
    }
    Ok(())
}

/// Writes a new file with exactly this mode.
pub(crate) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let act = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))
    };
    act().map_err(ImageError::io("write", path))
}

/// Makes a symbolic link.
pub(crate) fn make_link(target: impl AsRef<Path>, path: &Path) -> Result<()> {
    symlink(target, path).map_err(ImageError::io("make the link", path))
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut content))
        .map_err(ImageError::io("read", path))?;
    if content.len() as u64 > limit {
        return Err(ImageError::Limit(format!("{} is longer than {limit} bytes", path.display())));
    }
    Ok(content)
}

/// Replaces a private file in one step that survives a crash: write beside, sync, rename, sync
/// the directory.
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).expect("records serialise");
    let fresh = path.with_extension("json.new");
    let parent = path.parent().expect("a record lies in a directory");
    let act = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(parent)?.sync_all()
    };
    act().map_err(ImageError::io("write", path))
}

/// Syncs everything of the filesystem that holds `path`.
pub(crate) fn sync_tree(path: &Path) -> Result<()> {
    let dir = File::open(path).map_err(ImageError::io("open", path))?;
    rustix::fs::syncfs(&dir).map_err(ImageError::errno("sync", path))
}

/// Syncs a directory, so that a rename into it survives a crash.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(ImageError::io("sync", path))
}

/// Removes a tree. Fine if it is gone already.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        // As an ordinary user: files that belong to the user's sub-ids.
        Err(err)
            if err.kind() == io::ErrorKind::PermissionDenied
                && !rustix::process::geteuid().is_root() =>
        {
            crate::userns::remove(path)
        }
        Err(err) => Err(ImageError::io("remove", path)(err)),
    }
}

/// Removes a file, link or tree.
pub(crate) fn remove_any(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path).map_err(ImageError::io("remove", path)),
        Err(_) => Ok(()),
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}
