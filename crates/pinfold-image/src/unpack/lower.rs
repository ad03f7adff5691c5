//! Hard links into lower layers. Overlayfs cannot link across layers, so the file is copied up
//! first, as the kernel would do it.

use std::{fs::File, os::unix::ffi::OsStrExt, path::PathBuf};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::place::{OPAQUE, Tree};
use crate::{
    archive::{Entry, Kind},
    error::{ImageError, Result},
};

/// Copies the file at `parts` from the topmost lower tree that shows it. Nothing happens when
/// there is none.
pub(super) fn copy_up(place: &mut Tree, lowers: &[PathBuf], parts: &[&[u8]]) -> Result<()> {
    for lower in lowers {
        let root = fs::open(lower, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(ImageError::errno("open", lower))?;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mut hidden = false;
        for depth in 1..parts.len() {
            let path = parts[..depth].join(&b'/');
            let name = std::ffi::OsStr::from_bytes(&path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match fs::openat2(&root, name, flags, Mode::empty(), beneath) {
                Ok(dir) => {
                    let mut mark = [0u8; 1];
                    hidden |= fs::fgetxattr(&dir, OPAQUE, &mut mark[..]).is_ok() && mark == *b"y";
                }
                Err(Errno::NOENT) => break,
                // A file or whiteout here hides what lower trees have below it.
                Err(_) => {
                    hidden = true;
                    break;
                }
            }
        }
        let path = parts.join(&b'/');
        let name = std::ffi::OsStr::from_bytes(&path);
        if let Ok(fd) =
            fs::openat2(&root, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), beneath)
        {
            let facts = fs::statat(&fd, "", AtFlags::EMPTY_PATH)
                .map_err(ImageError::errno("look at", lower))?;
            if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
                return Ok(());
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = fs::openat2(&root, name, flags, Mode::empty(), beneath)
                .map(File::from)
                .map_err(ImageError::errno("open", lower))?;
            let entry = Entry::of_file(
                Kind::File,
                facts.st_mode & 0o7777,
                (crate::userns::inside(facts.st_uid), crate::userns::inside(facts.st_gid)),
                (facts.st_mtime, u32::try_from(facts.st_mtime_nsec).unwrap_or(0)),
            );
            return place.adopt(&file, parts, &entry);
        }
        if hidden {
            return Ok(());
        }
    }
    Ok(())
}
