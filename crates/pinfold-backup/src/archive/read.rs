//! Bytes to members.

use std::io::{self, Read};

use super::{
    BLOCK, Kind, MAX_PATH_BYTES, Member,
    pax::{self, bad},
};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// Reads an archive, a member at a time; between two, the reader itself gives the content.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// Content of the present member that was not read yet.
    left: u64,
    padding: u64,
    members: u64,
    ended: bool,
}

/// What a pax header says.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    mtime: Option<(i64, u32)>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    real_size: Option<u64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    /// Reads from the archive's first byte on.
    pub const fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0, members: 0, ended: false }
    }

    /// How many members have come.
    pub const fn members(&self) -> u64 {
        self.members
    }

    /// What was read from.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next member, past what is left of the present one; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "it fails, and the content is in between")]
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        if self.ended {
            return Ok(None);
        }
        let rest = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        let skipped = io::copy(&mut (&mut self.from).take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(bad("it ends within a member"));
        }
        let Some(block) = self.block()? else {
            self.ended = true;
            return Ok(None);
        };
        if block[156] != b'x' {
            return Err(bad("a member without its pax header"));
        }
        let length = pax::check_length(octal(&block[124..136])?)?;
        let mut text = vec![0; length.next_multiple_of(BLOCK)];
        self.from.read_exact(&mut text)?;
        let extended = Extended::parse(&text[..length])?;
        let block = self.block()?.ok_or_else(|| bad("a pax header without its member"))?;
        let member = self.finish(&block, extended)?;
        self.members += 1;
        Ok(Some(member))
    }

    fn finish(&mut self, block: &[u8; BLOCK], extended: Extended) -> io::Result<Member> {
        let missing = |what: &str| bad(format!("a member without its {what}"));
        let path = extended.path.ok_or_else(|| missing("path"))?;
        if path.is_empty() || path.len() > MAX_PATH_BYTES || path.contains(&0) {
            return Err(bad("a path that is empty, too long, or holds a NUL"));
        }
        let link = || {
            let link = extended.link.clone().ok_or_else(|| missing("link"))?;
            let fits = !link.is_empty() && link.len() <= MAX_PATH_BYTES && !link.contains(&0);
            fits.then_some(link).ok_or_else(|| bad("a link that is empty or too long"))
        };
        let device = || -> io::Result<(u32, u32)> {
            let part = |at: usize| {
                u32::try_from(octal(&block[at..at + 8])?).map_err(|_| bad("a device's number"))
            };
            Ok((part(329)?, part(337)?))
        };
        let size = extended.size.ok_or_else(|| missing("size"))?;
        let kind = match block[156] {
            b'0' => match extended.real_size {
                None => Kind::File { size, ranges: None },
                Some(real) => {
                    let (ranges, map_bytes) = self.map(size)?;
                    pax::check_ranges(&ranges, real)?;
                    let data: u64 = ranges.iter().map(|range| range.1).sum();
                    if size.checked_sub(map_bytes) != Some(data) {
                        return Err(bad("a file with holes of a wrong size"));
                    }
                    Kind::File { size: real, ranges: Some(ranges) }
                }
            },
            b'1' => Kind::HardLink(link()?),
            b'2' => Kind::Symlink(link()?),
            b'3' => device().map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(bad("a member of an unknown kind")),
        };
        if !matches!(kind, Kind::File { .. }) && size != 0 {
            return Err(bad("content in what has none"));
        }
        let member = Member {
            path,
            kind,
            mode: u32::try_from(octal(&block[100..108])?).map_err(|_| bad("a mode"))? & 0o7777,
            uid: extended.uid.ok_or_else(|| missing("owner"))?,
            gid: extended.gid.ok_or_else(|| missing("group"))?,
            mtime: extended.mtime.ok_or_else(|| missing("time"))?,
            xattrs: extended.xattrs,
        };
        self.left = member.content_bytes();
        let end = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| bad("a size"))?;
        self.padding = end - size;
        Ok(member)
    }

    /// The map of holes, and its bytes.
    fn map(&mut self, stored: u64) -> io::Result<(Vec<(u64, u64)>, u64)> {
        let mut block = [0; BLOCK];
        let (mut at, mut taken) = (BLOCK, 0_u64);
        let mut next = |from: &mut R| -> io::Result<u64> {
            let mut digits = Vec::new();
            loop {
                if at == BLOCK {
                    taken += BLOCK as u64;
                    if taken > stored {
                        return Err(bad("a map of holes without its end"));
                    }
                    from.read_exact(&mut block)?;
                    at = 0;
                }
                at += 1;
                match block[at - 1] {
                    b'\n' => return pax::number(&digits),
                    digit if digits.len() < 20 => digits.push(digit),
                    _ => return Err(bad("a number too long")),
                }
            }
        };
        let count = pax::check_count(next(&mut self.from)?)?;
        let mut ranges = Vec::new();
        for _ in 0..count {
            let offset = next(&mut self.from)?;
            ranges.push((offset, next(&mut self.from)?));
        }
        Ok((ranges, taken))
    }

    /// A header, or `None` at the end of the archive.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let cut = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => bad("it has no end"),
            _ => error,
        };
        self.from.read_exact(&mut block).map_err(cut)?;
        if block == [0; BLOCK] {
            self.from.read_exact(&mut block).map_err(cut)?;
            return if block == [0; BLOCK] { Ok(None) } else { Err(bad("half an end")) };
        }
        let said = octal(&block[148..156])?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if said != sum || &block[257..265] != b"ustar\x0000" {
            return Err(bad("a header that does not add up"));
        }
        Ok(Some(block))
    }
}

impl Extended {
    fn parse(text: &[u8]) -> io::Result<Self> {
        let mut said = Self::default();
        let id = |value: &[u8]| {
            u32::try_from(pax::number(value)?).map_err(|_| bad("an owner out of range"))
        };
        for (key, value) in pax::records(text)? {
            match key {
                b"path" => said.path = Some(value.to_vec()),
                b"linkpath" => said.link = Some(value.to_vec()),
                b"mtime" => said.mtime = Some(pax::parse_time(value)?),
                b"uid" => said.uid = Some(id(value)?),
                b"gid" => said.gid = Some(id(value)?),
                b"size" => said.size = Some(pax::number(value)?),
                b"GNU.sparse.realsize" => said.real_size = Some(pax::number(value)?),
                b"GNU.sparse.major" if value == b"1" => {}
                b"GNU.sparse.minor" if value == b"0" => {}
                b"GNU.sparse.name" => {}
                key => match key.strip_prefix(XATTR) {
                    Some(name) if !name.is_empty() && !name.contains(&0) => {
                        said.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                    _ => return Err(bad("an unknown record")),
                },
            }
        }
        Ok(said)
    }
}

fn octal(field: &[u8]) -> io::Result<u64> {
    let digits = field.iter().take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    if digits == 0 || field[digits..].iter().any(|byte| *byte != 0 && *byte != b' ') {
        return Err(bad("a number that is none"));
    }
    Ok(field[..digits].iter().fold(0, |sum, digit| sum * 8 + u64::from(digit - b'0')))
}

/// The content of the present member, holes left out.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let got = self.from.read(&mut buffer[..most])?;
        if got == 0 {
            return Err(bad("it ends within a member"));
        }
        self.left -= got as u64;
        Ok(got)
    }
}
