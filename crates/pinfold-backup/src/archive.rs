//! The archive inside a backup: POSIX pax (IEEE 1003.1, `pax`), in the dialect of one writer.
//!
//! Every member has a pax header with all that a plain header is too small for: whole path, time
//! to the nanosecond, large ids and sizes, extended attributes (`SCHILY.xattr.`), and the map of a
//! file with holes (GNU sparse 1.0). GNU tar lists and unpacks it. The reader takes what the writer
//! writes, with bounds on everything, and refuses the rest.

mod pax;
mod read;
mod tree;
mod unpack;
mod write;

pub use read::Reader;
pub use tree::{LeftOut, pack};
pub use unpack::{Unpacker, components};
pub use write::Writer;

/// Longest path of a member.
pub const MAX_PATH_BYTES: usize = 64 << 10;
/// Most bytes of one member's pax header: its path, its link and its extended attributes.
pub const MAX_PAX_BYTES: usize = 4 << 20;
/// Most data ranges of a file with holes; what is beyond is stored with its zeros.
pub const MAX_RANGES: usize = 64 << 10;
pub(crate) const BLOCK: usize = 512;

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of this many bytes. Ranges of data (offset, length) where it has holes.
    File {
        /// Length.
        size: u64,
        /// Its data, in order; `None`: all of it.
        ranges: Option<Vec<(u64, u64)>>,
    },
    /// Another name of an earlier member.
    HardLink(Vec<u8>),
    /// A symbolic link and what it says.
    Symlink(Vec<u8>),
    /// A character device; overlayfs marks what is deleted by device 0:0.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A directory.
    Directory,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path below the archive's root, without a slash in front or behind.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with those above 0777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, in seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member {
    /// A private file of ours.
    pub fn file(path: impl Into<Vec<u8>>, size: u64) -> Self {
        Self {
            path: path.into(),
            kind: Kind::File { size, ranges: None },
            mode: 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// Bytes of content that follow the member's header, the map of holes not among them.
    pub fn content_bytes(&self) -> u64 {
        match &self.kind {
            Kind::File { ranges: Some(ranges), .. } => ranges.iter().map(|range| range.1).sum(),
            Kind::File { size, ranges: None } => *size,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        let name = || proptest::collection::vec(1..=255_u8, 1..300);
        prop_oneof![
            (0..2000_u64).prop_map(|size| Kind::File { size, ranges: None }),
            (0..50_u64, 1..50_u64, 1..50_u64).prop_map(|(at, len, gap)| Kind::File {
                size: at + len + gap + len + gap,
                ranges: Some(vec![(at, len), (at + len + gap, len)]),
            }),
            name().prop_map(Kind::HardLink),
            name().prop_map(Kind::Symlink),
            (0..4096_u32, 0..100_000_u32).prop_map(|(major, minor)| Kind::Character(major, minor)),
            (0..4096_u32, 0..100_000_u32).prop_map(|(major, minor)| Kind::Block(major, minor)),
            Just(Kind::Fifo),
            Just(Kind::Directory),
        ]
    }

    prop_compose! {
        fn members()(
            path in proptest::collection::vec(1..=255_u8, 1..400),
            kind in kinds(),
            mode in 0..0o7777_u32,
            uid: u32,
            gid: u32,
            seconds in -5_000_000_000_i64..5_000_000_000,
            nanos in 0..1_000_000_000_u32,
            value in proptest::collection::vec(any::<u8>(), 0..100),
        ) -> Member {
            let xattrs = vec![(b"user.x".to_vec(), value)];
            Member { path, kind, mode, uid, gid, mtime: (seconds, nanos), xattrs }
        }
    }

    proptest! {
        #[test]
        fn members_come_back_as_they_were(all in proptest::collection::vec(members(), 0..6)) {
            let mut writer = Writer::new(Vec::new());
            for member in &all {
                writer.member(member).expect("memory");
                let content = vec![b'c'; usize::try_from(member.content_bytes()).expect("small")];
                writer.write_all(&content).expect("memory");
            }
            let bytes = writer.finish().expect("memory");
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            let mut reader = Reader::new(bytes.as_slice());
            for (number, member) in all.iter().enumerate() {
                let found = reader.next().expect("well formed").expect("a member");
                prop_assert_eq!(&found, member);
                if number % 2 == 0 {
                    let mut content = Vec::new();
                    reader.read_to_end(&mut content).expect("its content");
                    prop_assert_eq!(content.len() as u64, member.content_bytes());
                }
            }
            prop_assert!(reader.next().expect("well formed").is_none());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut reader = Reader::new(bytes.as_slice());
            while let Ok(Some(_)) = reader.next() {}
        }
    }

    #[test]
    fn an_archive_without_its_end_is_refused() {
        let mut writer = Writer::new(Vec::new());
        writer.member(&Member::file("a", 3)).expect("memory");
        writer.write_all(b"abc").expect("memory");
        let whole = writer.finish().expect("memory");
        let mut reader = Reader::new(&whole[..whole.len() - 1024]);
        reader.next().expect("well formed").expect("a member");
        assert!(reader.next().is_err(), "no end");
    }
}
