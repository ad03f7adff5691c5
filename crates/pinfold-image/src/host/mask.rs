//! What of the host's `/usr` is not shown: whiteouts in the skeleton's `usr`, which lies above
//! it in the overlay.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
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

/// Threads that look through `/usr`.
const THREADS: usize = 2;

/// What is to be hidden: the site's configuration, and with `hide_private` what only the host's
/// root may read. (Root inside reads with root's rights on the idmapped view; as an ordinary user
/// the kernel refuses already.) Sorted.
pub(super) fn find(root: &Path, hide_private: bool) -> Result<Vec<PathBuf>> {
    let mut hidden: Vec<PathBuf> = SITE
        .iter()
        .filter(|name| fs::symlink_metadata(root.join(name)).is_ok())
        .map(PathBuf::from)
        .collect();
    if hide_private {
        let search = Search {
            root,
            state: Mutex::default(),
            more: Condvar::new(),
            idle: AtomicUsize::new(0),
        };
        search.lock().open.push((PathBuf::from("usr"), 0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| search.work());
            }
        });
        let state = search.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = state.failed {
            return Err(failed);
        }
        hidden.extend(state.hidden);
    }
    hidden.sort();
    Ok(hidden)
}

/// Hides what was found.
pub(super) fn write(root: &Path, tree: &Path, hidden: &[PathBuf]) -> Result<()> {
    hidden.iter().try_for_each(|inside| hide(root, tree, inside))
}

/// A directory to look at, and how deep it is.
type Open = (PathBuf, usize);

/// A search that several threads share. Each goes on with what it found itself, and gives of it
/// only when another has nothing to do: there are many directories, and most are small.
struct Search<'a> {
    root: &'a Path,
    state: Mutex<State>,
    more: Condvar,
    /// Threads that have nothing to do.
    idle: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Directories that nobody looks at yet.
    open: Vec<Open>,
    hidden: Vec<PathBuf>,
    failed: Option<ImageError>,
}

impl Search<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let (mut mine, mut hidden) = (Vec::new(), Vec::new());
        while self.take(&mut mine) {
            while let Some((dir, depth)) = mine.pop() {
                if let Err(failed) = self.directory(&dir, depth, &mut mine, &mut hidden) {
                    self.lock().failed.get_or_insert(failed);
                    mine.clear();
                }
                if mine.len() > 1 && self.idle.load(Ordering::Relaxed) > 0 {
                    // The oldest are the highest, with the most below them.
                    let half = mine.len() / 2;
                    self.lock().open.extend(mine.drain(..half));
                    self.more.notify_one();
                }
            }
        }
        self.lock().hidden.append(&mut hidden);
    }

    /// Waits for something to do; false when all is done or something failed.
    fn take(&self, mine: &mut Vec<Open>) -> bool {
        let mut state = self.lock();
        self.idle.fetch_add(1, Ordering::Relaxed);
        loop {
            if state.failed.is_none() && !state.open.is_empty() {
                self.idle.fetch_sub(1, Ordering::Relaxed);
                mine.append(&mut state.open);
                return true;
            }
            if state.failed.is_some() || self.idle.load(Ordering::Relaxed) == THREADS {
                self.more.notify_all();
                return false;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn directory(
        &self,
        inside: &Path,
        depth: usize,
        open: &mut Vec<Open>,
        hidden: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let dir = self.root.join(inside);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // Vanished meanwhile: a package is being removed.
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(ImageError::io("read", dir)(err)),
        };
        for entry in entries {
            let entry = entry.map_err(ImageError::io("read", &dir))?;
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() {
                continue;
            }
            let Ok(facts) = entry.metadata() else { continue };
            let wanted = if kind.is_dir() { 0o005 } else { 0o004 };
            let private = facts.mode() & wanted != wanted || depth >= MAX_DEPTH;
            if !private && !kind.is_dir() {
                continue;
            }
            let path = inside.join(entry.file_name());
            if SITE.iter().any(|site| path == Path::new(site)) {
                continue;
            }
            if private {
                hidden.push(path);
            } else {
                open.push((path, depth + 1));
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn all_that_is_private_is_found_however_it_lies() {
        let dir = tempfile::tempdir().expect("a directory");
        let usr = dir.path().join("usr");
        let mut private = Vec::new();
        for number in 0..200 {
            let at = usr.join(format!("share/{}/{}", number % 7, number));
            fs::create_dir_all(&at).expect("made");
            for name in ["open", "secret"] {
                fs::write(at.join(name), name).expect("written");
                let mode = if name == "open" { 0o644 } else { 0o640 };
                fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).expect("set");
            }
            private.push(at.join("secret"));
        }
        let closed = usr.join("lib/closed");
        fs::create_dir_all(closed.join("below")).expect("made");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o710)).expect("set");
        fs::create_dir_all(usr.join("local/etc/secret")).expect("made");
        std::os::unix::fs::symlink("/nowhere", usr.join("link")).expect("linked");
        private.extend([closed, usr.join("local/etc")]);
        private.sort();
        let found = find(dir.path(), true).expect("found");
        let found: Vec<PathBuf> = found.iter().map(|inside| dir.path().join(inside)).collect();
        assert_eq!(found, private);
        assert_eq!(find(dir.path(), false).expect("found"), [PathBuf::from("usr/local/etc")]);
    }
}
