//! Removal of a directory tree that somebody hostile may have made: any depth, no descriptor or
//! stack frame a level, no link followed.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, RawDir, RenameFlags},
    io::Errno,
};

use crate::{
    error::{At, DiskError},
    layout::{DIRECTORY, Place},
};

/// Removes the directory at `place` with all it holds. Directories found in it are moved to its
/// top first, so that the tree is never deeper than one level where work is done.
pub(crate) fn tree(place: &Place<'_>) -> Result<(), DiskError> {
    let path = place.path();
    let top = match place.open() {
        Err(DiskError::Missing(_)) => return Ok(()),
        other => other?,
    };
    contents(top, usize::MAX).at("empty", path.display())?;
    match rustix::fs::unlinkat(place.directory(), &place.name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("remove", path.display()),
    }
}

/// Removes all that the directory `top` holds, but gives up after `most` entries: whether nothing
/// is left.
pub(crate) fn contents(top: OwnedFd, most: usize) -> rustix::io::Result<bool> {
    let mut flat = Flat { top, number: 0, waiting: Vec::new(), left: most };
    // What an earlier removal that was cut short had moved already is found here by its name.
    let again = rustix::fs::openat(&flat.top, ".", DIRECTORY, Mode::empty())?;
    flat.empty(&again)?;
    while flat.left > 0
        && let Some(name) = flat.waiting.pop()
    {
        let directory = match rustix::fs::openat(&flat.top, &name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        flat.empty(&directory)?;
        if flat.left > 0 {
            rustix::fs::unlinkat(&flat.top, &name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(flat.left > 0)
}

struct Flat {
    top: OwnedFd,
    number: u64,
    waiting: Vec<Vec<u8>>,
    /// Entries that may still be removed.
    left: usize,
}

impl Flat {
    /// Unlinks the files of `directory` and moves its directories to the top.
    fn empty(&mut self, directory: &OwnedFd) -> rustix::io::Result<()> {
        let reading = rustix::fs::openat(directory, ".", DIRECTORY, Mode::empty())?;
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(&reading, buffer.spare_capacity_mut());
        while self.left > 0
            && let Some(entry) = entries.next()
        {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.left -= 1;
            if entry.file_type() != FileType::Directory {
                match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    // A filesystem that does not say what an entry is.
                    Err(Errno::ISDIR) => {}
                    Err(error) => return Err(error),
                }
            }
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                // It holds something, or is not its owner's to write.
                Err(_) => self.flatten(directory, name)?,
            }
        }
        Ok(())
    }

    fn flatten(&mut self, directory: &OwnedFd, name: &std::ffi::CStr) -> rustix::io::Result<()> {
        // A directory that its owner cannot write cannot be emptied or moved without
        // CAP_DAC_OVERRIDE; failing to change the mode shows at the next step.
        let own = Mode::RWXU;
        let _ = rustix::fs::chmodat(directory, name, own, AtFlags::empty());
        loop {
            let flat = format!("~{}", self.number).into_bytes();
            self.number += 1;
            let moved = rustix::fs::renameat_with(
                directory,
                name,
                self.top.as_fd(),
                flat.as_slice(),
                RenameFlags::NOREPLACE,
            );
            match moved {
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error),
                Ok(()) => {
                    self.waiting.push(flat);
                    return Ok(());
                }
            }
        }
    }
}
