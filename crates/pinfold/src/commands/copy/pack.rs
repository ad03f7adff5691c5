//! Files of this machine as a tar stream. Links are packed as links, never followed.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use pinfold_types::{Error, ErrorCode, Result};
use tar::{Builder, EntryType, Header};

use crate::client::BodyWriter;

/// Deepest directory below the source.
const MAX_DEPTH: usize = 512;
/// Files with several names that are remembered; later ones are packed once for each name.
const MAX_LINKS: usize = 1 << 16;
/// File systems whose files say nothing of their size: proc, sysfs, cgroup v1 and v2.
const VIEWS: [i64; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];
/// Most bytes of a file of theirs.
const MAX_VIEW_BYTES: u64 = 4 << 20;

/// Packs `source` under `name`, or what is in it when there is no name. `progress` hears the
/// bytes of files done so far. Gives how many devices, sockets and pipes were left out. A failure
/// breaks the stream off.
pub(super) fn pack(
    source: &Path,
    name: Option<&str>,
    writer: BodyWriter,
    mut progress: impl FnMut(u64),
) -> Result<u64> {
    let mut packer = Packer {
        builder: Builder::new(writer),
        done: 0,
        skipped: 0,
        links: HashMap::new(),
        progress: &mut progress,
    };
    let entries = match name {
        Some(name) => packer.entry(source, Path::new(name), 0),
        None => packer.children(source, Path::new(""), 1),
    };
    let finished = entries.and_then(|()| {
        packer
            .builder
            .finish()
            .and_then(|()| packer.builder.get_mut().flush())
            .map_err(|error| gone(&error))
    });
    let skipped = packer.skipped;
    if let (Err(error), Ok(writer)) = (&finished, packer.builder.into_inner()) {
        writer.abort(io::Error::other(error.message.clone()));
    }
    finished.map(|()| skipped)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorCode::InvalidPath, format!("{} cannot be read: {error}", path.display()))
}

/// The server took no more: its own answer says why.
fn gone(error: &io::Error) -> Error {
    Error::new(ErrorCode::Cancelled, format!("the upload ended early: {error}"))
}

struct Packer<'a> {
    builder: Builder<BodyWriter>,
    done: u64,
    skipped: u64,
    /// The first name in the archive of files that have several.
    links: HashMap<(u64, u64), PathBuf>,
    progress: &'a mut dyn FnMut(u64),
}

impl Packer<'_> {
    /// What is in a directory, in the order of names, so that equal trees make equal archives.
    fn children(&mut self, path: &Path, name: &Path, depth: usize) -> Result<()> {
        let mut children: Vec<_> = fs::read_dir(path)
            .and_then(Iterator::collect::<io::Result<_>>)
            .map_err(|error| unreadable(path, &error))?;
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            self.entry(&child.path(), &name.join(child.file_name()), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, depth: usize) -> Result<()> {
        let unreadable = |error: io::Error| unreadable(path, &error);
        let metadata = path.symlink_metadata().map_err(unreadable)?;
        let kind = metadata.file_type();
        let mut header = header(&metadata);
        if kind.is_dir() {
            if depth >= MAX_DEPTH {
                return Err(Error::new(
                    ErrorCode::TooLarge,
                    format!("{} is more than {MAX_DEPTH} directories deep", path.display()),
                ));
            }
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            self.builder
                .append_data(&mut header, name, io::empty())
                .map_err(|error| gone(&error))?;
            self.children(path, name, depth + 1)?;
        } else if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            let target = fs::read_link(path).map_err(unreadable)?;
            self.builder.append_link(&mut header, name, target).map_err(|error| gone(&error))?;
        } else if kind.is_file() {
            self.file(path, name, &mut header).map_err(|failure| match failure {
                Failure::Read(error) => unreadable(error),
                Failure::Write(error) => gone(&error),
            })?;
        } else if depth > 0 {
            // Nothing that a file's copy could mean.
            self.skipped += 1;
        } else {
            let what = match () {
                () if kind.is_fifo() => "pipe",
                () if kind.is_socket() => "socket",
                () => "device",
            };
            return Err(Error::new(
                ErrorCode::InvalidPath,
                format!("{} is a {what}: it has no content to copy", path.display()),
            ));
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &Path, header: &mut Header) -> Result<(), Failure> {
        let file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(Failure::Read)?;
        // The file that was opened counts, not the one that was looked at.
        let metadata = file.metadata().map_err(Failure::Read)?;
        if metadata.nlink() > 1 {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&identity) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.builder.append_link(header, name, first).map_err(Failure::Write);
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(identity, name.to_owned());
            }
        }
        header.set_entry_type(EntryType::Regular);
        if metadata.blocks() == 0 && is_view(&file) {
            let content = whole(file).map_err(Failure::Read)?;
            let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
            header.set_size(size);
            let appended = self.builder.append_data(header, name, content.as_slice());
            self.done += size;
            return appended.map_err(Failure::Write);
        }
        let size = metadata.len();
        header.set_size(size);
        let mut exact =
            Exact { file, left: size, error: None, done: &mut self.done, tell: self.progress };
        let appended = self.builder.append_data(header, name, &mut exact);
        match (exact.error.take(), appended) {
            (Some(error), _) => Err(Failure::Read(error)),
            (None, Err(error)) => Err(Failure::Write(error)),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Whether the kernel makes the file up as it is read.
fn is_view(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| VIEWS.contains(&system.f_type))
}

/// Such a file, to its end.
fn whole(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let size = file.take(MAX_VIEW_BYTES + 1).read_to_end(&mut content)?;
    if u64::try_from(size).unwrap_or(u64::MAX) > MAX_VIEW_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

enum Failure {
    Read(io::Error),
    Write(io::Error),
}

/// Reads as many bytes as the header promised: what a file gains meanwhile is left out, and one
/// that loses some is an error.
struct Exact<'a> {
    file: File,
    left: u64,
    error: Option<io::Error>,
    done: &'a mut u64,
    tell: &'a mut dyn FnMut(u64),
}

impl io::Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.file.read(&mut buffer[..most]) {
            Ok(0) => {
                let error = "the file became shorter while it was copied";
                self.error = Some(io::Error::other(error));
                Err(io::Error::other(error))
            }
            Ok(count) => {
                let bytes = u64::try_from(count).unwrap_or(0);
                self.left -= bytes;
                *self.done += bytes;
                (self.tell)(*self.done);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.error = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }
}

/// Mode and time; never owners: inside, a copy belongs to whoever the workspace says.
fn header(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header
}
