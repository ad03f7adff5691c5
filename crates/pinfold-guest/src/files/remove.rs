//! Removing trees: by descriptors, without following links, without crossing into other file
//! systems, in bounded memory and descriptors however deep the tree is.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use pinfold_types::{Error, ErrorCode, exec::check_path};
use rustix::{
    fs::{AtFlags, Dir, FileType},
    io::Errno,
};

use super::tree::open_dir;
use crate::failure::on_path;

/// Levels that are held open at once. Deeper ones are moved up first.
const MAX_DEPTH: usize = 64;

/// Removes a path.
pub(super) fn remove(path: &str, recursive: bool) -> Result<(), Error> {
    check_path(path)?;
    let failed = |error| on_path("remove", path, &error);
    // `a/` and `a/.` would mean what a link points to.
    let plain = path.trim_end_matches('/');
    if plain.is_empty() || plain.ends_with("/.") || plain.ends_with("/..") {
        return Err(Error::new(
            ErrorCode::InvalidPath,
            format!("{path:?} cannot be removed: name what is to go"),
        ));
    }
    let facts = fs::symlink_metadata(plain).map_err(failed)?;
    if !facts.is_dir() {
        return fs::remove_file(plain).map_err(failed);
    }
    match fs::remove_dir(plain) {
        Err(error) if recursive && error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        done => return done.map_err(failed),
    }
    let parent = Path::new(plain).parent().unwrap_or(Path::new("/"));
    let name = Path::new(plain).file_name().unwrap_or_default();
    let parent = fs::File::open(parent).map_err(failed)?;
    let top = open_dir(parent.as_fd(), name).map_err(failed)?;
    let device = rustix::fs::fstat(&top).map_err(|errno| failed(errno.into()))?.st_dev;
    let mut work = Removal { top: &top, device, moved: 0 };
    loop {
        let before = work.moved;
        work.clear(&top, 0).map_err(failed)?;
        // What was moved up is below the top now: once more.
        if work.moved == before {
            break;
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(|errno| failed(errno.into()))
}

struct Removal<'a> {
    top: &'a OwnedFd,
    device: u64,
    moved: u64,
}

impl Removal<'_> {
    fn clear(&mut self, directory: &OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entry.file_type() != FileType::Directory {
                match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    // The file system did not say what it is.
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            self.clear_below(directory.as_fd(), name, depth)?;
        }
        Ok(())
    }

    fn clear_below(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> io::Result<()> {
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        if depth >= MAX_DEPTH {
            loop {
                let place = format!(".pinfold-removing-{}", self.moved);
                self.moved += 1;
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(directory, name, self.top, place, flags) {
                    Ok(()) | Err(Errno::NOENT) => return Ok(()),
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        let below = match open_dir(directory, name) {
            Ok(below) => below,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if rustix::fs::fstat(&below)?.st_dev != self.device {
            return Err(Errno::XDEV.into());
        }
        self.clear(&below, depth + 1)?;
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_removed_and_never_followed() {
        let place = tempfile::tempdir().expect("a directory");
        let (inside, outside) = (place.path().join("in"), place.path().join("out"));
        fs::create_dir_all(inside.join("deep/er")).expect("made");
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("kept"), "x").expect("written");
        fs::write(inside.join("deep/file"), "x").expect("written");
        std::os::unix::fs::symlink(&outside, inside.join("link")).expect("linked");
        std::os::unix::fs::symlink(&outside, inside.join("deep/er/link")).expect("linked");
        let path = inside.to_str().expect("plain");
        assert_eq!(remove(path, false).expect_err("full").code, ErrorCode::AlreadyExists);
        remove(path, true).expect("removed");
        assert!(!inside.exists() && outside.join("kept").exists());
        for bad in ["/", "//", "/tmp/.", "/tmp/..", "x"] {
            assert!(remove(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes_too() {
        let place = tempfile::tempdir().expect("a directory");
        let top = place.path().join("top");
        fs::create_dir(&top).expect("made");
        let mut at = OwnedFd::from(fs::File::open(&top).expect("opened"));
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "a-directory", rustix::fs::Mode::RWXU).expect("made");
            at = open_dir(at.as_fd(), "a-directory").expect("opened");
        }
        remove(top.to_str().expect("plain"), true).expect("removed");
        assert!(!top.exists());
    }
}
