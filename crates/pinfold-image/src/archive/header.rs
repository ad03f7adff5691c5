//! The 512-byte header of a tar entry (POSIX.1-1988 ustar, with GNU's numbers).

use super::{BLOCK, bad};
use crate::error::Result;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
    Pax,
    PaxGlobal,
    GnuName,
    GnuLink,
    GnuSparse,
}

/// A header as read.
#[derive(Debug)]
pub(super) struct Header {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
    pub link: Vec<u8>,
    pub device: (u32, u32),
    pub block: [u8; BLOCK],
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self> {
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if number(&block[148..156])? != sum {
            return Err(bad("a header has a wrong checksum"));
        }
        let kind = match block[156] {
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'x' => Kind::Pax,
            b'g' => Kind::PaxGlobal,
            b'L' => Kind::GnuName,
            b'K' => Kind::GnuLink,
            b'S' => Kind::GnuSparse,
            other => return Err(bad(format!("an entry has the unknown type {other:#04x}"))),
        };
        let ustar = &block[257..263] == b"ustar\0";
        let mut path = text(&block[..100]);
        if ustar && block[345] != 0 {
            let mut full = text(&block[345..500]);
            full.push(b'/');
            full.append(&mut path);
            path = full;
        }
        // Before ustar a directory was a file whose name ends in a slash.
        let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Directory } else { kind };
        let small = |range: std::ops::Range<usize>, what: &str| {
            u32::try_from(number(&block[range])?)
                .map_err(|_| bad(format!("an entry's {what} is too large")))
        };
        let device = if matches!(kind, Kind::Character | Kind::Block) {
            (small(329..337, "device number")?, small(337..345, "device number")?)
        } else {
            (0, 0)
        };
        Ok(Self {
            path,
            kind,
            mode: small(100..108, "mode")?,
            uid: small(108..116, "owner")?,
            gid: small(116..124, "group")?,
            size: if kind == Kind::Directory { 0 } else { number(&block[124..136])? },
            mtime: signed(&block[136..148])?,
            link: text(&block[157..257]),
            device,
            block: *block,
        })
    }
}

fn text(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// Octal, or base 256 when the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Err(bad("a number is negative"));
        }
        let (first, rest) = (u64::from(field[0] & 0x3f), &field[1..]);
        return rest.iter().try_fold(first, |value, byte| {
            value
                .checked_mul(256)
                .map(|value| value | u64::from(*byte))
                .ok_or_else(|| bad("a number is too large"))
        });
    }
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ');
    let mut value: u64 = 0;
    for byte in digits.take_while(|byte| !matches!(byte, 0 | b' ')) {
        if !(b'0'..=b'7').contains(&byte) {
            return Err(bad("a number is not octal"));
        }
        value = value
            .checked_mul(8)
            .map(|value| value + u64::from(byte - b'0'))
            .ok_or_else(|| bad("a number is too large"))?;
    }
    Ok(value)
}

/// A time may lie before 1970, in base 256.
fn signed(field: &[u8]) -> Result<i64> {
    if field[0] == 0xff {
        let value = field[field.len() - 8..]
            .iter()
            .fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
        return Ok(value.cast_signed());
    }
    i64::try_from(number(field)?).map_err(|_| bad("a time is too large"))
}
