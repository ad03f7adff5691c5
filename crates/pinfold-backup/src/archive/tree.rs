//! A directory tree into an archive. Nobody may write to it meanwhile.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read, Seek, SeekFrom as At, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use pinfold_sys::tree::{DIRECTORY, MAX_XATTR_BYTES, beneath, each, join};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat},
    io::Errno,
};

use super::{Kind, MAX_PATH_BYTES, MAX_RANGES, Member, Writer};

/// Bytes of a file read at once.
const PIECE: usize = 256 << 10;

/// What a tree holds that an archive cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Sockets: they mean nothing without the process behind them.
    pub sockets: u64,
    /// Files and whole directories whose path is longer than [`MAX_PATH_BYTES`].
    pub too_deep: u64,
}

/// Puts the directory at `root` and all below it into the archive, under `prefix`.
pub fn pack<W: Write>(writer: &mut Writer<W>, root: &Path, prefix: &str) -> io::Result<LeftOut> {
    let root = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    let stat = rustix::fs::fstat(&root)?;
    let mut packer = Packer {
        writer,
        root,
        prefix: prefix.as_bytes(),
        links: HashMap::new(),
        waiting: vec![CString::default()],
        left_out: LeftOut::default(),
        piece: vec![0; PIECE],
    };
    let mut member = member_of(&stat, prefix.as_bytes().to_vec(), Kind::Directory);
    member.xattrs = xattrs(packer.root.as_fd())?;
    packer.writer.member(&member)?;
    while let Some(directory) = packer.waiting.pop() {
        packer.directory(&directory)?;
    }
    Ok(packer.left_out)
}

struct Packer<'a, W> {
    writer: &'a mut Writer<W>,
    root: OwnedFd,
    prefix: &'a [u8],
    /// Where the first name of each file with several is.
    links: HashMap<u64, Vec<u8>>,
    /// Directories whose own members are written already.
    waiting: Vec<CString>,
    left_out: LeftOut,
    piece: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, path: &CStr) -> io::Result<()> {
        let directory = beneath(&self.root, path)?;
        let mut names = Vec::new();
        each(&directory, |name| {
            names.push(name.to_owned());
            Ok(())
        })?;
        // The same tree gives the same archive.
        names.sort_unstable();
        for name in names {
            self.entry(&directory, path, &name)?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, below: &CStr, name: &CStr) -> io::Result<()> {
        let inside = join(below, name);
        let mut path = self.prefix.to_vec();
        path.push(b'/');
        path.extend_from_slice(inside.to_bytes());
        if path.len() > MAX_PATH_BYTES {
            self.left_out.too_deep += 1;
            return Ok(());
        }
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_nlink > 1 && kind != FileType::Directory {
            if let Some(first) = self.links.get(&stat.st_ino) {
                let link = Kind::HardLink(first.clone());
                return self.writer.member(&member_of(&stat, path, link));
            }
            self.links.insert(stat.st_ino, path.clone());
        }
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match kind {
            FileType::RegularFile => return self.file(directory, name, &stat, path),
            FileType::Directory => {
                let open = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())?;
                let mut member = member_of(&stat, path, Kind::Directory);
                member.xattrs = xattrs(open.as_fd())?;
                self.waiting.push(inside);
                return self.writer.member(&member);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                Kind::Symlink(target.into_bytes())
            }
            FileType::CharacterDevice => Kind::Character(device.0, device.1),
            FileType::BlockDevice => Kind::Block(device.0, device.1),
            FileType::Fifo => Kind::Fifo,
            _ => {
                self.left_out.sockets += 1;
                return Ok(());
            }
        };
        self.writer.member(&member_of(&stat, path, kind))
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        path: Vec<u8>,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let ranges = ranges(&open, size)?;
        let mut member = member_of(stat, path, Kind::File { size, ranges: ranges.clone() });
        member.xattrs = xattrs(open.as_fd())?;
        self.writer.member(&member)?;
        let mut file = File::from(open);
        for (offset, length) in ranges.unwrap_or_else(|| vec![(0, size)]) {
            file.seek(At::Start(offset))?;
            let mut left = length;
            while left > 0 {
                let most = self.piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let got = file.read(&mut self.piece[..most])?;
                if got == 0 {
                    return Err(io::Error::other("a file became shorter while it was read"));
                }
                self.writer.write_all(&self.piece[..got])?;
                left -= got as u64;
            }
        }
        Ok(())
    }
}

fn member_of(stat: &Stat, path: Vec<u8>, kind: Kind) -> Member {
    Member {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        xattrs: Vec::new(),
    }
}

/// The data between a file's holes; `None` where it has none.
fn ranges(file: &OwnedFd, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(begin))?.min(size);
        if found.len() + 1 == MAX_RANGES {
            // So torn that the rest is stored with its zeros.
            found.push((begin, size - begin));
            break;
        }
        found.push((begin, end - begin));
        at = end;
    }
    Ok((found != [(0, size)] && size > 0).then_some(found))
}

fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0_u8; 1024];
    let length = loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if names.len() < MAX_XATTR_BYTES => names.resize(MAX_XATTR_BYTES, 0),
            other => break other?,
        }
    };
    let mut found = Vec::new();
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // Labels belong to the machine.
        if name == b"security.selinux" {
            continue;
        }
        value.resize(MAX_XATTR_BYTES, 0);
        match rustix::fs::fgetxattr(file, name, &mut value[..]) {
            Err(Errno::NODATA) => {}
            other => found.push((name.to_vec(), value[..other?].to_vec())),
        }
    }
    Ok(found)
}
