//! Members into a directory. Nothing in an archive can lead out of it: every step of a path is
//! opened below the directory, following no link.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use pinfold_sys::tree::{DIRECTORY, beneath};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{Kind, MAX_PATH_BYTES, Member, pax::bad};

/// Parent and name of a path below a directory; refuses what could mean anything else.
pub fn components(path: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    if path.len() > MAX_PATH_BYTES || !path.split(|byte| *byte == b'/').all(plain) {
        return Err(bad("a path that leads elsewhere"));
    }
    Ok(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    })
}

/// Fills one directory.
#[derive(Debug)]
pub struct Unpacker {
    root: OwnedFd,
    /// Times of directories, which filling them changes.
    times: Vec<(Vec<u8>, (i64, u32))>,
    /// The parent used last, since archives come in order.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl Unpacker {
    /// Fills `root`, which is there.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
        Ok(Self { root, times: Vec::new(), parent: None })
    }

    fn open(&self, directory: &[u8]) -> io::Result<OwnedFd> {
        let path = CString::new(directory).map_err(|_| bad("a NUL in a path"))?;
        Ok(beneath(&self.root, &path)?)
    }

    /// Makes a member at `path` below the directory; an empty path is the directory itself.
    /// A file's content is read from `content`. `link` turns the archive's path of a hard link's
    /// first name into one below this directory.
    pub fn place(
        &mut self,
        member: &Member,
        path: &[u8],
        link: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
        content: &mut impl Read,
    ) -> io::Result<()> {
        if path.is_empty() {
            if member.kind != Kind::Directory {
                return Err(bad("a file in the place of a directory"));
            }
            self.times.push((Vec::new(), member.mtime));
            return attributes(self.root.as_fd(), member);
        }
        let (parent, name) = components(path)?;
        let at = match self.parent.take() {
            Some((cached, fd)) if cached == parent => fd,
            _ => self.open(parent)?,
        };
        self.make(&at, name, member, path, link, content)?;
        self.parent = Some((parent.to_vec(), at));
        Ok(())
    }

    fn make(
        &mut self,
        at: &OwnedFd,
        name: &[u8],
        member: &Member,
        path: &[u8],
        link: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
        content: &mut impl Read,
    ) -> io::Result<()> {
        let (kind, device) = match &member.kind {
            Kind::Directory => {
                match rustix::fs::mkdirat(at, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                let made = rustix::fs::openat(at, name, DIRECTORY, Mode::empty())?;
                self.times.push((path.to_vec(), member.mtime));
                return attributes(made.as_fd(), member);
            }
            Kind::File { size, ranges } => {
                return file(at, name, member, *size, ranges.as_deref(), content);
            }
            Kind::HardLink(to) => {
                let first = link(to).ok_or_else(|| bad("a hard link that leads elsewhere"))?;
                let (parent, first) = components(&first)?;
                let from = self.open(parent)?;
                return Ok(rustix::fs::linkat(from, first, at, name, AtFlags::empty())?);
            }
            Kind::Symlink(to) => {
                rustix::fs::symlinkat(to.as_slice(), at, name)?;
                return named_attributes(at, name, member);
            }
            Kind::Character(major, minor) => {
                (FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
            }
            Kind::Block(major, minor) => {
                (FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
            }
            Kind::Fifo => (FileType::Fifo, 0),
        };
        rustix::fs::mknodat(at, name, kind, Mode::RUSR, device)?;
        named_attributes(at, name, member)
    }

    /// Gives directories their times, and puts all on the disk.
    pub fn finish(mut self) -> io::Result<()> {
        // What lies below another came after it.
        for (path, mtime) in std::mem::take(&mut self.times).into_iter().rev() {
            rustix::fs::futimens(self.open(&path)?, &times(mtime))?;
        }
        rustix::fs::syncfs(&self.root)?;
        Ok(())
    }
}

fn file(
    at: &OwnedFd,
    name: &[u8],
    member: &Member,
    size: u64,
    ranges: Option<&[(u64, u64)]>,
    content: &mut impl Read,
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let made = File::from(rustix::fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR)?);
    let all = [(0, size)];
    if ranges.is_some() {
        made.set_len(size)?;
    }
    let mut piece = vec![0; 256 << 10];
    for (offset, length) in ranges.unwrap_or(&all) {
        let (mut place, mut left) = (*offset, *length);
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = content.read(&mut piece[..most])?;
            if got == 0 {
                return Err(bad("a file without all of its content"));
            }
            made.write_all_at(&piece[..got], place)?;
            place += got as u64;
            left -= got as u64;
        }
    }
    attributes(made.as_fd(), member)?;
    Ok(rustix::fs::futimens(&made, &times(member.mtime))?)
}

fn attributes(file: BorrowedFd<'_>, member: &Member) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(member.mode))?;
    // After the owner: changing it would strip file capabilities.
    for (name, value) in &member.xattrs {
        rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())?;
    }
    Ok(())
}

fn named_attributes(at: &OwnedFd, name: &[u8], member: &Member) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
    rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(member.kind, Kind::Symlink(_)) {
        rustix::fs::chmodat(at, name, Mode::from_raw_mode(member.mode), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(at, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

const fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    };

    use super::*;
    use crate::archive::{Reader, Writer, pack};

    fn restore(archive: &[u8], prefix: &[u8], into: &Path) -> io::Result<()> {
        let mut reader = Reader::new(archive);
        let mut unpacker = Unpacker::new(into)?;
        while let Some(member) = reader.next()? {
            let inside = |path: &[u8]| {
                let rest = path.strip_prefix(prefix)?;
                Some(rest.strip_prefix(b"/").unwrap_or(rest).to_vec())
            };
            let path = inside(&member.path).ok_or_else(|| bad("another prefix"))?;
            unpacker.place(&member, &path, inside, &mut reader)?;
        }
        unpacker.finish()
    }

    /// Facts of every entry, for comparing two trees.
    fn facts(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![root.to_path_buf()];
        while let Some(path) = waiting.pop() {
            let stat = path.symlink_metadata().expect("an entry");
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            let size = if stat.is_dir() { 0 } else { stat.len() };
            let content = if stat.is_file() { std::fs::read(&path).expect("read") } else { vec![] };
            let target = std::fs::read_link(&path).unwrap_or_default();
            found.push(format!(
                "{name} {:o} {} {} {size} {} {}.{} {} {target:?} {:?}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.rdev(),
                stat.mtime(),
                stat.mtime_nsec(),
                if stat.is_dir() { 0 } else { stat.nlink() },
                content.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte)),
            ));
            if stat.is_dir() {
                waiting
                    .extend(std::fs::read_dir(&path).expect("list").map(|e| e.expect("e").path()));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let home = tempfile::tempdir().expect("a directory");
        let from = home.path().join("from");
        std::fs::create_dir_all(from.join("a/empty")).expect("directories");
        std::fs::write(from.join("a/file"), b"content").expect("a file");
        std::fs::hard_link(from.join("a/file"), from.join("z")).expect("a link");
        symlink("../outside", from.join("a/link")).expect("a link");
        let odd = std::ffi::OsStr::from_bytes(b"odd\xff\nname .wh.x");
        std::fs::write(from.join(odd), b"").expect("a file");
        let holes = File::create(from.join("holes")).expect("a file");
        holes.write_all_at(b"end", (8 << 20) - 3).expect("written");
        holes.write_all_at(b"middle", 1 << 20).expect("written");
        let dir = rustix::fs::open(&from, DIRECTORY, Mode::empty()).expect("open");
        rustix::fs::mknodat(&dir, "whiteout", FileType::CharacterDevice, Mode::empty(), 0)
            .expect("a device");
        rustix::fs::mknodat(&dir, "pipe", FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).expect("bound");
        std::os::unix::fs::chown(from.join("a"), Some(0x7000_0001), Some(70_000)).expect("chown");
        std::fs::set_permissions(from.join("a/file"), std::fs::Permissions::from_mode(0o4711))
            .expect("chmod");
        let file = File::open(from.join("a/file")).expect("open");
        rustix::fs::fsetxattr(&file, "user.key", b"v\0\n=", XattrFlags::empty()).expect("xattr");
        let opaque = File::open(from.join("a/empty")).expect("open");
        rustix::fs::fsetxattr(&opaque, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .expect("xattr");
        rustix::fs::futimens(&opaque, &times((-3, 500_000_000))).expect("times");

        let mut writer = Writer::new(Vec::new());
        let left_out = pack(&mut writer, &from, "p/q").expect("packed");
        assert_eq!((left_out.sockets, left_out.too_deep), (1, 0));
        let archive = writer.finish().expect("memory");
        assert!(archive.len() < 1 << 20, "holes take no room: {}", archive.len());
        let to = home.path().join("to");
        std::fs::create_dir(&to).expect("a directory");
        restore(&archive, b"p/q", &to).expect("unpacked");

        std::fs::remove_file(from.join("socket")).expect("removed");
        let from_time = from.metadata().expect("facts").modified().expect("a time");
        let (mut was, mut is) = (facts(&from), facts(&to));
        // Taking the socket away has changed the time of the top.
        assert!(from_time >= to.metadata().expect("facts").modified().expect("a time"));
        let top = |all: &mut Vec<String>| all.retain(|line| !line.starts_with(' '));
        top(&mut was);
        top(&mut is);
        assert_eq!(was, is);
        let holes = to.join("holes").metadata().expect("facts");
        assert!(holes.blocks() * 512 < 1 << 20, "{} blocks", holes.blocks());
        assert!(
            to.join("whiteout").symlink_metadata().expect("facts").file_type().is_char_device()
        );
        let mut value = [0; 16];
        let open = File::open(to.join("a/file")).expect("open");
        let length = rustix::fs::fgetxattr(&open, "user.key", &mut value[..]).expect("kept");
        assert_eq!(&value[..length], b"v\0\n=");
        let open = File::open(to.join("a/empty")).expect("open");
        rustix::fs::fgetxattr(&open, "trusted.overlay.opaque", &mut value[..]).expect("kept");
        let again = {
            let mut writer = Writer::new(Vec::new());
            pack(&mut writer, &to, "p/q").expect("packed");
            writer.finish().expect("memory")
        };
        assert_eq!(again.len(), archive.len());
    }

    #[test]
    fn a_tree_deeper_than_any_path_comes_back() {
        let home = tempfile::tempdir().expect("a directory");
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        std::fs::create_dir(&from).expect("a directory");
        std::fs::create_dir(&to).expect("a directory");
        let name = "d".repeat(200);
        let mut at = rustix::fs::open(&from, DIRECTORY, Mode::empty()).expect("open");
        for _ in 0..60 {
            rustix::fs::mkdirat(&at, &*name, Mode::RWXU).expect("made");
            at = rustix::fs::openat(&at, &*name, DIRECTORY, Mode::empty()).expect("open");
        }
        let mut writer = Writer::new(Vec::new());
        assert_eq!(
            pack(&mut writer, &from, "x").expect("packed"),
            crate::archive::LeftOut::default()
        );
        let archive = writer.finish().expect("memory");
        restore(&archive, b"x", &to).expect("unpacked");
        let mut writer = Writer::new(Vec::new());
        pack(&mut writer, &to, "x").expect("packed");
        assert_eq!(writer.members(), 61);
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let into = home.path().join("into");
        for (link, path) in [
            (None, &b"x/../../evil"[..]),
            (None, b"x//etc/evil"),
            (None, b"x/./evil"),
            (Some(&b"x/link"[..]), b"x/link/evil"),
        ] {
            let _old = std::fs::remove_dir_all(&into);
            std::fs::create_dir(&into).expect("a directory");
            let mut writer = Writer::new(Vec::new());
            if let Some(link) = link {
                let mut member = Member::file(link, 0);
                member.kind = Kind::Symlink(b"..".to_vec());
                writer.member(&member).expect("memory");
            }
            writer.member(&Member::file(path, 0)).expect("memory");
            let archive = writer.finish().expect("memory");
            restore(&archive, b"x", &into).expect_err("it leads elsewhere");
            assert!(!home.path().join("evil").exists());
        }
        let mut writer = Writer::new(Vec::new());
        let mut member = Member::file("x/passwd", 0);
        member.kind = Kind::HardLink(b"/etc/passwd".to_vec());
        writer.member(&member).expect("memory");
        let archive = writer.finish().expect("memory");
        restore(&archive, b"x", &into).expect_err("another tree's file");
    }
}
