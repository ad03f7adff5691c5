//! Members to bytes.

use std::io::{self, Write};

use super::{BLOCK, Kind, MAX_PATH_BYTES, Member, pax};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// Writes an archive. After [`Writer::member`] the member's content is written, all of it, before
/// the next.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Content that the present member still lacks.
    missing: u64,
    padding: usize,
    members: u64,
}

impl<W: Write> Writer<W> {
    /// An empty archive.
    pub const fn new(out: W) -> Self {
        Self { out, missing: 0, padding: 0, members: 0 }
    }

    /// How many members it has so far.
    pub const fn members(&self) -> u64 {
        self.members
    }

    /// Begins a member.
    pub fn member(&mut self, member: &Member) -> io::Result<()> {
        self.end_member()?;
        if member.path.len() > MAX_PATH_BYTES {
            let why = format!("a path is longer than {MAX_PATH_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let map = match &member.kind {
            Kind::File { ranges: Some(ranges), size } => {
                pax::check_ranges(ranges, *size)?;
                Some(pax::map(ranges))
            }
            _ => None,
        };
        let content = member.content_bytes();
        let stored = content + map.as_ref().map_or(0, |map| map.len() as u64);
        let extended = extended(member, stored);
        pax::check_length(extended.len() as u64)?;
        self.header(b'x', b"pax", extended.len() as u64, member, &[])?;
        self.out.write_all(&extended)?;
        self.pad(extended.len() as u64)?;
        let (kind, link): (u8, &[u8]) = match &member.kind {
            Kind::File { .. } => (b'0', b""),
            Kind::HardLink(to) => (b'1', to),
            Kind::Symlink(to) => (b'2', to),
            Kind::Character(..) => (b'3', b""),
            Kind::Block(..) => (b'4', b""),
            Kind::Directory => (b'5', b""),
            Kind::Fifo => (b'6', b""),
        };
        self.header(kind, &member.path, stored, member, link)?;
        if let Some(map) = &map {
            self.out.write_all(map)?;
        }
        self.missing = content;
        self.padding = usize::try_from(stored.next_multiple_of(BLOCK as u64) - stored)
            .expect("less than a block");
        self.members += 1;
        Ok(())
    }

    /// A member with its content.
    pub fn whole(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.member(&Member::file(path, content.len() as u64))?;
        self.write_all(content)
    }

    /// Writes the end of the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_member()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.missing > 0 {
            return Err(io::Error::other("a file became shorter while it was read"));
        }
        self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let rest = written.next_multiple_of(BLOCK as u64) - written;
        let rest = usize::try_from(rest).expect("less than a block");
        self.out.write_all(&[0; BLOCK][..rest])
    }

    /// A ustar header. What does not fit stands in the pax header before it.
    fn header(
        &mut self,
        kind: u8,
        path: &[u8],
        size: u64,
        member: &Member,
        link: &[u8],
    ) -> io::Result<()> {
        let mut block = [0_u8; BLOCK];
        let mut text = |at: usize, most: usize, value: &[u8]| {
            let length = value.len().min(most);
            block[at..at + length].copy_from_slice(&value[..length]);
        };
        text(0, 100, path);
        text(157, 100, link);
        text(257, 8, b"ustar\x0000");
        let mut octal = |at: usize, digits: usize, value: u64| {
            let most = (1_u64 << (3 * digits)) - 1;
            let value = format!("{:0digits$o}", value.min(most));
            block[at..at + digits].copy_from_slice(value.as_bytes());
        };
        octal(100, 7, u64::from(member.mode & 0o7777));
        octal(108, 7, u64::from(member.uid));
        octal(116, 7, u64::from(member.gid));
        octal(124, 11, size);
        octal(136, 11, u64::try_from(member.mtime.0).unwrap_or(0));
        if let Kind::Character(major, minor) | Kind::Block(major, minor) = member.kind {
            octal(329, 7, u64::from(major));
            octal(337, 7, u64::from(minor));
        }
        block[156] = kind;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        block[154] = 0;
        self.out.write_all(&block)
    }
}

fn extended(member: &Member, stored: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    pax::push(&mut out, b"path", &member.path);
    if let Kind::HardLink(to) | Kind::Symlink(to) = &member.kind {
        pax::push(&mut out, b"linkpath", to);
    }
    pax::push(&mut out, b"mtime", pax::time(member.mtime.0, member.mtime.1).as_bytes());
    pax::push(&mut out, b"uid", member.uid.to_string().as_bytes());
    pax::push(&mut out, b"gid", member.gid.to_string().as_bytes());
    pax::push(&mut out, b"size", stored.to_string().as_bytes());
    if let Kind::File { size, ranges: Some(_) } = &member.kind {
        pax::push(&mut out, b"GNU.sparse.major", b"1");
        pax::push(&mut out, b"GNU.sparse.minor", b"0");
        pax::push(&mut out, b"GNU.sparse.name", &member.path);
        pax::push(&mut out, b"GNU.sparse.realsize", size.to_string().as_bytes());
    }
    for (name, value) in &member.xattrs {
        // pax has no way to write a name with '=' in it, nor has any other tar.
        if !name.contains(&b'=') {
            pax::push(&mut out, &[XATTR, name].concat(), value);
        }
    }
    out
}

/// The member's content.
impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = usize::try_from(self.missing).unwrap_or(usize::MAX);
        if most == 0 && !bytes.is_empty() {
            return Err(io::Error::other("more content than the member was said to have"));
        }
        let written = self.out.write(&bytes[..bytes.len().min(most)])?;
        self.missing -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
