//! Making objects beneath one directory descriptor.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{BufWriter, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        self, AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps,
        Uid, XattrFlags,
    },
    io::Errno,
};

use super::names;
use crate::{
    archive::Entry,
    error::{ImageError, Result},
};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// overlayfs' marks, in the namespace that needs no privilege (`userxattr` mounts).
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// Begins a line of the owners' log that takes back all before it for a path and what is below.
pub(crate) const FORGET: &[u8] = b"x x x ";

/// Whether owners are set here, or written down for a helper that may.
#[derive(Debug)]
pub(super) enum Owners {
    Set,
    Log(BufWriter<File>),
}

impl Owners {
    pub(super) fn log(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(ImageError::io("write", path))?;
        Ok(Self::Log(BufWriter::new(file)))
    }
}

/// Facts of a directory that are set last: filling it changes its time, and its mode may forbid
/// filling it.
#[derive(Clone, Copy, Debug)]
struct DirFacts {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
}

/// A tree being filled.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
    root: OwnedFd,
    owners: Owners,
    directories: BTreeMap<Vec<u8>, DirFacts>,
    /// The parent used last, since archives come in order.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Whether files of lower trees were copied in: the result then depends on them.
    pub(super) adopted: bool,
}

/// A file being written.
#[derive(Debug)]
pub(super) struct Open {
    file: File,
    path: PathBuf,
}

impl Open {
    pub(super) fn write(&mut self, offset: u64, piece: &[u8]) -> Result<()> {
        self.file.write_all_at(piece, offset).map_err(ImageError::io("write", &self.path))
    }
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b'/')
}

impl Tree {
    pub(super) fn open(path: &Path, owners: Owners) -> Result<Self> {
        let root =
            fs::open(path, DIRECTORY, Mode::empty()).map_err(ImageError::errno("open", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            root,
            owners,
            directories: BTreeMap::new(),
            cached: None,
            adopted: false,
        })
    }

    fn at(&self, parts: &[&[u8]], name: &[u8]) -> PathBuf {
        self.path.join(os(&join(parts))).join(os(name))
    }

    /// A directory of the tree, made with its missing parents.
    fn parent(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let wanted = join(parts);
        if let Some((path, fd)) = &self.cached
            && *path == wanted
        {
            return fd.try_clone().map_err(ImageError::io("use", &self.path));
        }
        let fd = if parts.is_empty() {
            self.root.try_clone().map_err(ImageError::io("use", &self.path))?
        } else {
            match fs::openat2(&self.root, os(&wanted), DIRECTORY, Mode::empty(), BENEATH) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parts)?,
                Err(errno) => return Err(self.refuse(parts, errno)),
            }
        };
        let copy = fd.try_clone().map_err(ImageError::io("use", &self.path))?;
        self.cached = Some((wanted, copy));
        Ok(fd)
    }

    fn make_parents(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let mut at = self.root.try_clone().map_err(ImageError::io("use", &self.path))?;
        for depth in 0..parts.len() {
            let (here, name) = (&parts[..=depth], os(parts[depth]));
            if is_whiteout(&at, parts[depth]) {
                // Hidden, then filled anew: an opaque directory.
                fs::unlinkat(&at, name, AtFlags::empty())
                    .map_err(|errno| self.refuse(here, errno))?;
                self.make_dir(&at, here)?;
                self.mark_opaque(&at, here)?;
            } else if fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                self.make_dir(&at, here)?;
            }
            at = fs::openat2(&at, name, DIRECTORY, Mode::empty(), BENEATH)
                .map_err(|errno| self.refuse(here, errno))?;
        }
        Ok(at)
    }

    fn make_dir(&mut self, at: &OwnedFd, parts: &[&[u8]]) -> Result<()> {
        let name = os(parts.last().expect("not the root"));
        fs::mkdirat(at, name, Mode::from_raw_mode(0o700))
            .map_err(|errno| self.refuse(parts, errno))?;
        let facts = DirFacts { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) };
        self.directories.insert(join(parts), facts);
        Ok(())
    }

    fn refuse(&self, parts: &[&[u8]], errno: Errno) -> ImageError {
        let name = names::show(&join(parts));
        match errno {
            Errno::LOOP | Errno::XDEV | Errno::NOTDIR => ImageError::Bad(format!(
                "the archive goes through {name}, which is a link or a file and not a directory"
            )),
            Errno::NAMETOOLONG => ImageError::Bad(format!("{name} is too long")),
            errno => ImageError::Io {
                action: "unpack",
                path: self.path.join(os(&join(parts))),
                source: errno.into(),
            },
        }
    }

    /// Removes what is in the way; a directory with all it holds.
    fn clear(&mut self, parent: &OwnedFd, parts: &[&[u8]], name: &[u8]) -> Result<()> {
        let at = self.at(parts, name);
        match fs::unlinkat(parent, os(name), AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                self.cached = None;
                remove_dir(parent, name, 0).map_err(ImageError::errno("replace", &at))?;
            }
            Err(errno) => return Err(ImageError::errno("replace", at)(errno)),
        }
        if let Owners::Log(log) = &mut self.owners {
            // What was written down for this name and below it is not for what comes now, which
            // may be a link to somewhere else.
            log.write_all(FORGET)
                .and_then(|()| log.write_all(&join(&[parts, &[name]].concat())))
                .and_then(|()| log.write_all(b"\0"))
                .map_err(ImageError::io("write", &self.path))?;
        }
        Ok(())
    }

    pub(super) fn root(&mut self, entry: &Entry) {
        self.directories.insert(Vec::new(), facts(entry));
        set_xattrs(&self.root, entry);
    }

    pub(super) fn directory(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        let parent = self.parent(parents)?;
        let parts = [parents, &[name]].concat();
        let hidden = is_whiteout(&parent, name);
        let is_dir = fs::statat(&parent, os(name), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode) == FileType::Directory);
        if !is_dir {
            self.clear(&parent, parents, name)?;
            self.make_dir(&parent, &parts)?;
        }
        if hidden {
            self.mark_opaque(&parent, &parts)?;
        }
        if !entry.xattrs.is_empty() {
            let dir = fs::openat2(&parent, os(name), DIRECTORY, Mode::empty(), BENEATH)
                .map_err(|errno| self.refuse(&parts, errno))?;
            set_xattrs(&dir, entry);
        }
        self.directories.insert(join(&parts), facts(entry));
        Ok(())
    }

    pub(super) fn file(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<Open> {
        let parent = self.parent(parents)?;
        self.clear(&parent, parents, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let path = self.at(parents, name);
        let fd = fs::openat2(&parent, os(name), flags, Mode::from_raw_mode(0o600), BENEATH)
            .map_err(ImageError::errno("make", &path))?;
        Ok(Open { file: File::from(fd), path })
    }

    pub(super) fn finish_file(
        &mut self,
        open: &Open,
        parents: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        let fail = |errno| ImageError::errno("finish", &open.path)(errno);
        // A hole at the end.
        fs::ftruncate(&open.file, entry.size).map_err(fail)?;
        match &mut self.owners {
            Owners::Set => {
                let (uid, gid) = owner(entry.uid, entry.gid);
                fs::fchown(&open.file, Some(uid), Some(gid)).map_err(fail)?;
                fs::fchmod(&open.file, mode(entry.mode)).map_err(fail)?;
            }
            Owners::Log(log) => {
                fs::fchmod(&open.file, mode(entry.mode)).map_err(fail)?;
                write_owner(log, entry, &[parents, &[name]].concat())
                    .map_err(ImageError::io("write", &self.path))?;
            }
        }
        // After chown, which clears capabilities.
        set_xattrs(&open.file, entry);
        fs::futimens(&open.file, &times(entry.mtime)).map_err(fail)
    }

    pub(super) fn symlink(&mut self, parents: &[&[u8]], name: &[u8], entry: &Entry) -> Result<()> {
        let parent = self.parent(parents)?;
        self.clear(&parent, parents, name)?;
        let path = self.at(parents, name);
        fs::symlinkat(os(&entry.link), &parent, os(name))
            .map_err(ImageError::errno("make the link", &path))?;
        self.own(&parent, parents, name, entry)?;
        self.times(&parent, name, entry)
    }

    pub(super) fn fifo(&mut self, parents: &[&[u8]], name: &[u8], entry: &Entry) -> Result<()> {
        let parent = self.parent(parents)?;
        self.clear(&parent, parents, name)?;
        let path = self.at(parents, name);
        fs::mknodat(&parent, os(name), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(ImageError::errno("make the pipe", &path))?;
        self.own(&parent, parents, name, entry)?;
        fs::chmodat(&parent, os(name), mode(entry.mode), AtFlags::empty())
            .map_err(ImageError::errno("set the mode of", &path))?;
        self.times(&parent, name, entry)
    }

    /// A hard link within the tree; false when the target is not in it.
    pub(super) fn link(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        target: &[&[u8]],
    ) -> Result<bool> {
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(ImageError::Bad("a hard link points to the root".into()));
        };
        let path = join(target_parents);
        let from = if path.is_empty() {
            self.root.try_clone().map_err(ImageError::io("use", &self.path))?
        } else {
            match fs::openat2(&self.root, os(&path), DIRECTORY, Mode::empty(), BENEATH) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
                Err(errno) => return Err(self.refuse(target_parents, errno)),
            }
        };
        let Ok(facts) = fs::statat(&from, os(target_name), AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(false);
        };
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            FileType::CharacterDevice => return Ok(false),
            _ => return Err(ImageError::Bad("a hard link points to a directory".into())),
        }
        if [parents, &[name]].concat() == target {
            return Ok(true);
        }
        let parent = self.parent(parents)?;
        self.clear(&parent, parents, name)?;
        match fs::linkat(&from, os(target_name), &parent, os(name), AtFlags::empty()) {
            Ok(()) => Ok(true),
            // The target was below what stood in the way.
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(ImageError::errno("link", self.at(parents, name))(errno)),
        }
    }

    /// Marks a directory as hiding everything below it.
    pub(super) fn opaque(&mut self, parts: &[&[u8]]) -> Result<()> {
        let dir = self.parent(parts)?;
        fs::fsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty())
            .map_err(ImageError::errno("mark", self.path.join(os(&join(parts)))))
    }

    fn mark_opaque(&self, parent: &OwnedFd, parts: &[&[u8]]) -> Result<()> {
        let name = os(parts.last().expect("not the root"));
        fs::openat2(parent, name, DIRECTORY, Mode::empty(), BENEATH)
            .and_then(|dir| fs::fsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty()))
            .map_err(|errno| self.refuse(parts, errno))
    }

    /// Hides a name of the layers below. What this layer itself holds there stays, and a
    /// directory then hides what is below it.
    pub(super) fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        let parent = self.parent(parents)?;
        match fs::statat(&parent, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) if FileType::from_raw_mode(facts.st_mode) == FileType::Directory => {
                self.mark_opaque(&parent, &[parents, &[name]].concat())
            }
            Ok(_) => Ok(()),
            Err(_) => fs::mknodat(&parent, os(name), FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(ImageError::errno("make a whiteout at", self.at(parents, name))),
        }
    }

    fn own(
        &mut self,
        parent: &OwnedFd,
        parents: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        match &mut self.owners {
            Owners::Set => {
                let (uid, gid) = owner(entry.uid, entry.gid);
                fs::chownat(parent, os(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(ImageError::errno("change the owner of", self.at(parents, name)))
            }
            // The mode of a link would be set on what it points to.
            Owners::Log(log) => write!(log, "{} {} - ", entry.uid, entry.gid)
                .and_then(|()| log.write_all(&join(&[parents, &[name]].concat())))
                .and_then(|()| log.write_all(b"\0"))
                .map_err(ImageError::io("write", &self.path)),
        }
    }

    fn times(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        fs::utimensat(parent, os(name), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(ImageError::errno("set the time of", &self.path))
    }

    /// Sets what was kept for last: deepest directories first.
    pub(super) fn finish(mut self) -> Result<()> {
        self.cached = None;
        for (path, facts) in std::mem::take(&mut self.directories).into_iter().rev() {
            let dir = if path.is_empty() {
                self.root.try_clone().map_err(ImageError::io("use", &self.path))?
            } else {
                match fs::openat2(&self.root, os(&path), DIRECTORY, Mode::empty(), BENEATH) {
                    Ok(dir) => dir,
                    // Replaced by something else later in the archive.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(errno) => {
                        return Err(ImageError::errno("open", self.path.join(os(&path)))(errno));
                    }
                }
            };
            let fail = |errno| ImageError::errno("finish", self.path.join(os(&path)))(errno);
            match &mut self.owners {
                Owners::Set => {
                    let (uid, gid) = owner(facts.uid, facts.gid);
                    fs::fchown(&dir, Some(uid), Some(gid)).map_err(fail)?;
                    fs::fchmod(&dir, mode(facts.mode)).map_err(fail)?;
                }
                Owners::Log(log) => write!(log, "{} {} {:o} ", facts.uid, facts.gid, facts.mode)
                    .and_then(|()| log.write_all(if path.is_empty() { b"." } else { &path }))
                    .and_then(|()| log.write_all(b"\0"))
                    .map_err(ImageError::io("write", &self.path))?,
            }
            fs::futimens(&dir, &times(facts.mtime)).map_err(fail)?;
        }
        if let Owners::Log(log) = &mut self.owners {
            log.flush().map_err(ImageError::io("write", &self.path))?;
        }
        Ok(())
    }

    /// Copies a file of a lower tree into this one, with its directories' facts left to overlay.
    pub(super) fn adopt(&mut self, source: &File, parts: &[&[u8]], entry: &Entry) -> Result<()> {
        let (name, parents) = parts.split_last().expect("a file has a name");
        self.adopted = true;
        let mut target = self.file(parents, name)?;
        let copied = std::io::copy(&mut &*source, &mut target.file)
            .map_err(ImageError::io("copy", &target.path))?;
        let entry = entry.clone().sized(copied);
        self.finish_file(&target, parents, name, &entry)
    }
}

fn facts(entry: &Entry) -> DirFacts {
    DirFacts { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime }
}

fn write_owner(log: &mut BufWriter<File>, entry: &Entry, parts: &[&[u8]]) -> std::io::Result<()> {
    write!(log, "{} {} {:o} ", entry.uid, entry.gid, entry.mode)?;
    log.write_all(&join(parts))?;
    log.write_all(b"\0")
}

/// All bits set means "leave as it is" to the kernel, and is nobody's id.
fn owner(uid: u32, gid: u32) -> (Uid, Gid) {
    let known = |id: u32| if id == u32::MAX { 65534 } else { id };
    (Uid::from_raw(known(uid)), Gid::from_raw(known(gid)))
}

fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits as RawMode)
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// Keeps `user.*` other than overlayfs' own, and file capabilities. A filesystem or kernel that
/// cannot hold one does without: none of them widens anything.
fn set_xattrs(fd: impl AsFd, entry: &Entry) {
    for (name, value) in &entry.xattrs {
        let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if (user || name == b"security.capability") && name.len() <= 255 && value.len() <= 65_536 {
            let set = fs::fsetxattr(&fd, os(name), value, XattrFlags::empty());
            if let Err(errno) = set {
                tracing::debug!(%errno, name = %names::show(name), "an attribute is left out");
            }
        }
    }
}

fn is_whiteout(parent: &OwnedFd, name: &[u8]) -> bool {
    fs::statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|facts| {
        FileType::from_raw_mode(facts.st_mode) == FileType::CharacterDevice && facts.st_rdev == 0
    })
}

/// Removes a directory by descriptors, never by path.
fn remove_dir(parent: &OwnedFd, name: &[u8], depth: usize) -> Result<(), Errno> {
    if depth > 256 {
        return Err(Errno::LOOP);
    }
    let dir = fs::openat2(parent, os(name), DIRECTORY, Mode::empty(), BENEATH)?;
    let entries: Vec<Vec<u8>> = fs::Dir::read_from(&dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
        .collect::<Result<_, _>>()?;
    for entry in entries.iter().filter(|entry| !matches!(entry.as_slice(), b"." | b"..")) {
        match fs::unlinkat(&dir, os(entry), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) => remove_dir(&dir, entry, depth + 1)?,
            Err(errno) => return Err(errno),
        }
    }
    fs::unlinkat(parent, os(name), AtFlags::REMOVEDIR)
}
