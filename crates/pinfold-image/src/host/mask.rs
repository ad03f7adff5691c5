//! What of the host's `/usr` is not shown: whiteouts in the skeleton's `usr`, which lies above
//! it in the overlay.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{
    error::{ImageError, Result},
    files,
};

/// The site's own configuration below `/usr`, which may name hosts and hold credentials.
const SITE: [&str; 2] = ["usr/etc", "usr/local/etc"];

/// Deepest directory looked at.
const MAX_DEPTH: usize = 64;

/// Hides the site's configuration, and with `hide_private` what only the host's root may read.
/// (Root inside reads with root's rights on the idmapped view; as an ordinary user the kernel
/// refuses already.)
pub(super) fn write(root: &Path, tree: &Path, hide_private: bool) -> Result<()> {
    for name in SITE {
        if fs::symlink_metadata(root.join(name)).is_ok() {
            hide(root, tree, Path::new(name))?;
        }
    }
    if !hide_private {
        return Ok(());
    }
    let mut open = vec![(PathBuf::from("usr"), 0)];
    while let Some((inside, depth)) = open.pop() {
        let dir = root.join(&inside);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // Vanished meanwhile: a package is being removed.
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
            Err(err) => return Err(ImageError::io("read", dir)(err)),
        };
        for entry in entries {
            let entry = entry.map_err(ImageError::io("read", &dir))?;
            let path = inside.join(entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() || SITE.iter().any(|site| path == Path::new(site)) {
                continue;
            }
            let Ok(facts) = entry.metadata() else { continue };
            let wanted = if kind.is_dir() { 0o005 } else { 0o004 };
            if facts.mode() & wanted != wanted || depth >= MAX_DEPTH {
                hide(root, tree, &path)?;
            } else if kind.is_dir() {
                open.push((path, depth + 1));
            }
        }
    }
    Ok(())
}

/// Puts a whiteout at this path; the directories on the way look like the host's.
fn hide(root: &Path, tree: &Path, inside: &Path) -> Result<()> {
    let mut at = PathBuf::new();
    for part in inside.parent().expect("below usr").components() {
        at.push(part);
        let target = tree.join(&at);
        if !target.is_dir() {
            let facts =
                fs::metadata(root.join(&at)).map_err(ImageError::io("look at", root.join(&at)))?;
            files::make_dir(&target, facts.mode() & 0o7777)?;
        }
    }
    whiteout(&tree.join(inside))
}

/// A character device 0:0, which overlayfs reads as "nothing here".
fn whiteout(path: &Path) -> Result<()> {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(ImageError::errno("make a whiteout at", path))
}
