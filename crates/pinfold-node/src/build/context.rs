//! The files a build copies from: a directory of this machine that is read beneath its root only,
//! no symbolic link followed (VM-09), and packed into a tar that is unpacked inside the workspace.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use pinfold_types::{Error, ErrorCode, Result, config::ImagesConfig, name::excerpt};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat,
    statat,
};

use crate::images::Upload;

/// Deepest directory that is packed.
const MAX_DEPTH: usize = 256;

/// A directory to copy from. An unpacked upload is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Context {
    root: PathBuf,
    temporary: Option<PathBuf>,
}

impl Context {
    /// A directory that somebody named.
    pub(super) fn at(root: PathBuf) -> Result<Self> {
        open_root(&root)?;
        Ok(Self { root, temporary: None })
    }

    /// Unpacks an upload beside itself.
    pub(super) fn unpack(upload: &Upload, config: &ImagesConfig) -> Result<Self> {
        let dir = upload.path.with_extension("context");
        let context = Self { root: dir.join("tree"), temporary: Some(dir.clone()) };
        pinfold_image::unpack_context(&upload.path, &dir, config)?;
        Ok(context)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(dir) = &self.temporary {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Refuses sources that are missing or reached through a symbolic link.
pub(super) fn check(root: &Path, sources: &[String]) -> Result<()> {
    let root = open_root(root)?;
    sources.iter().try_for_each(|source| look_up(&root, source).map(drop))
}

/// Whether a source is anything but a directory.
pub(super) fn is_file(root: &Path, source: &str) -> Result<bool> {
    let facts = look_up(&open_root(root)?, source)?;
    Ok(FileType::from_raw_mode(facts.st_mode) != FileType::Directory)
}

/// Writes a tar of the sources: a file under its last name or `rename`, of a directory what is in
/// it. Everything belongs to root.
pub(super) fn pack(
    root: &Path,
    sources: &[String],
    rename: Option<&str>,
    out: &mut impl Write,
) -> Result<()> {
    let root = open_root(root)?;
    let mut archive = tar::Builder::new(out);
    for source in sources {
        let facts = look_up(&root, source)?;
        let failed = |err: io::Error| unreadable(source, &err);
        if FileType::from_raw_mode(facts.st_mode) == FileType::Directory {
            let dir = open_dir(&root, source).map_err(failed)?;
            pack_dir(&mut archive, &dir, Path::new(""), 0).map_err(failed)?;
            continue;
        }
        let path = Path::new(source);
        let name =
            path.file_name().ok_or_else(|| unreadable(source, &io::Error::other("no name")))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.and_then(Path::to_str).unwrap_or(".");
        let dir = open_dir(&root, parent).map_err(failed)?;
        let inside = rename.map_or_else(|| PathBuf::from(name), PathBuf::from);
        pack_entry(&mut archive, &dir, name, &inside, 0).map_err(failed)?;
    }
    archive
        .into_inner()
        .map(drop)
        .map_err(|err| Error::new(ErrorCode::Cancelled, format!("the copy ended: {err}")))
}

fn open_root(root: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, root, flags, Mode::empty()).map_err(|errno| {
        Error::new(
            ErrorCode::InvalidPath,
            format!("the context {:?} is not a directory: {errno}", root.display().to_string()),
        )
        .hint("give a directory that the server can read")
    })
}

/// Nothing above the root, and no link on the way.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn look_up(root: &OwnedFd, source: &str) -> Result<Stat> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A link as the last part is copied as a link, so only the way to it must be free of them.
    let path = Path::new(source);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let found = openat2(root, parent.unwrap_or(Path::new(".")), flags, Mode::empty(), BENEATH)
        .and_then(|dir| match path.file_name() {
            Some(name) => statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW),
            None => rustix::fs::fstat(&dir),
        });
    found.map_err(|errno| match errno {
        rustix::io::Errno::NOENT => Error::not_found("file in the context", excerpt(source)),
        _ => unreadable(source, &errno.into()),
    })
}

fn open_dir(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(root, path, flags, Mode::empty(), BENEATH)?)
}

fn unreadable(source: &str, err: &io::Error) -> Error {
    let refused = matches!(
        err.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::LOOP | rustix::io::Errno::XDEV)
    );
    if refused {
        return Error::new(
            ErrorCode::InvalidPath,
            format!("{:?} leads through a symbolic link or out of the context", excerpt(source)),
        )
        .hint("copy the file itself into the context");
    }
    Error::new(ErrorCode::InvalidPath, format!("{:?} cannot be copied: {err}", excerpt(source)))
        .hint("files of a context must be readable by the server")
}

fn pack_dir(
    archive: &mut tar::Builder<impl Write>,
    dir: &OwnedFd,
    inside: &Path,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("deeper than {MAX_DEPTH} directories")));
    }
    let mut names: Vec<CString> = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let name = os(&name);
        pack_entry(archive, dir, name, &inside.join(name), depth)?;
    }
    Ok(())
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

fn pack_entry(
    archive: &mut tar::Builder<impl Write>,
    dir: &OwnedFd,
    name: &OsStr,
    inside: &Path,
    depth: usize,
) -> io::Result<()> {
    let facts = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::Directory => {
            archive.append_data(
                &mut header(&facts, tar::EntryType::Directory, 0),
                inside,
                io::empty(),
            )?;
            let below = openat(dir, name, flags | OFlags::DIRECTORY, Mode::empty())?;
            pack_dir(archive, &below, inside, depth + 1)
        }
        FileType::Symlink => {
            let target = readlinkat(dir, name, Vec::new())?;
            let mut header = header(&facts, tar::EntryType::Symlink, 0);
            archive.append_link(&mut header, inside, os(&target))
        }
        FileType::RegularFile => {
            let file = File::from(openat(dir, name, flags, Mode::empty())?);
            let facts = rustix::fs::fstat(file.as_fd())?;
            if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("it changed while it was read"));
            }
            let size = u64::try_from(facts.st_size).unwrap_or(0);
            let mut header = header(&facts, tar::EntryType::Regular, size);
            let content = Exactly { file: file.take(size), missing: size };
            archive.append_data(&mut header, inside, content)
        }
        // Pipes, sockets and devices are not files to copy.
        _ => Ok(()),
    }
}

fn header(facts: &Stat, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(facts.st_mode & 0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(facts.st_mtime).unwrap_or(0));
    header.set_size(size);
    header
}

/// A file that must have as many bytes as it said: one that shrinks meanwhile is an error, not a
/// broken archive.
struct Exactly {
    file: io::Take<File>,
    missing: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.missing -= u64::try_from(read).expect("a usize fits");
        if read == 0 && self.missing > 0 && !buffer.is_empty() {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<String> {
        tar::Archive::new(archive)
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect()
    }

    #[test]
    fn only_what_lies_in_the_context_is_packed() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        std::fs::create_dir_all(root.join("src/deep")).expect("made");
        std::fs::write(root.join("src/deep/a"), "1").expect("written");
        std::fs::write(root.join("b"), "2").expect("written");
        std::os::unix::fs::symlink("/etc", root.join("out")).expect("linked");
        let pack = |sources: &[&str], rename| {
            let sources: Vec<String> = sources.iter().map(|s| (*s).to_owned()).collect();
            let mut out = Vec::new();
            pack(root, &sources, rename, &mut out).map(|()| names(&out))
        };
        assert_eq!(pack(&["src", "b"], None).expect("fine"), ["deep", "deep/a", "b"]);
        assert_eq!(pack(&["b"], Some("c")).expect("fine"), ["c"]);
        assert_eq!(pack(&["out"], None).expect("the link itself"), ["out"]);
        for bad in ["out/passwd", "../x", "missing"] {
            pack(&[bad], None).expect_err(bad);
        }
        assert!(check(root, &["out/passwd".into()]).is_err());
        assert!(is_file(root, "b").expect("there") && !is_file(root, "src").expect("there"));
    }
}
