//! The two small texts that are rewritten in place: the first line of a segment, and the head.
//!
//! Each fits one sector of a disk (512 bytes), begins at one, and is written by one call, so that
//! a crash finds the old or the new one and never half of each.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    chain::{ChainHash, Point, genuine, seal, unseal},
    key::AuditKey,
};

/// Bytes of a segment's first line, newline included.
pub(crate) const HEADER_BYTES: usize = 512;
/// The same, as a place in a file.
pub(crate) const HEADER_END: u64 = 512;
/// Bytes of the head, newline included.
pub(crate) const HEAD_BYTES: usize = 512;
/// Version of the format.
const VERSION: u32 = 1;

/// Whether something may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// A writer has it, or had it when it died.
    Open,
    /// Closed in order: it ends where its header says.
    Closed,
}

/// The first line of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    #[serde(rename = "pinfold_audit")]
    version: u32,
    /// Number of the first record.
    pub(crate) first: u64,
    /// Hash of the record before it.
    pub(crate) prev: ChainHash,
    /// The last record that was on the disk when this was written.
    pub(crate) seq: u64,
    /// Its hash.
    pub(crate) hash: ChainHash,
    /// Where it ends in the file.
    pub(crate) bytes: u64,
    pub(crate) state: State,
}

impl Header {
    /// Of a segment that continues from `after`.
    pub(crate) const fn new(after: Point) -> Self {
        Self {
            version: VERSION,
            first: after.seq + 1,
            prev: after.hash,
            seq: after.seq,
            hash: after.hash,
            bytes: HEADER_END,
            state: State::Open,
        }
    }

    /// What the segment continues from.
    pub(crate) const fn before(&self) -> Point {
        Point { seq: self.first.saturating_sub(1), hash: self.prev }
    }

    /// The last record known to be on the disk.
    pub(crate) const fn mark(&self) -> Point {
        Point { seq: self.seq, hash: self.hash }
    }

    pub(crate) fn to_bytes(&self, key: &AuditKey) -> Vec<u8> {
        block(key, self, HEADER_BYTES)
    }

    /// `None` when this key did not write it, or it contradicts itself.
    pub(crate) fn parse(key: &AuditKey, bytes: &[u8]) -> Option<Self> {
        let header: Self = unblock(key, bytes, HEADER_BYTES)?;
        let sound = header.version == VERSION
            && header.first > 0
            && header.seq >= header.first - 1
            && header.bytes >= HEADER_END;
        sound.then_some(header)
    }

    pub(crate) fn write(&self, key: &AuditKey, file: &File) -> io::Result<()> {
        file.write_all_at(&self.to_bytes(key), 0)
    }

    pub(crate) fn read(key: &AuditKey, file: &File) -> io::Result<Option<Self>> {
        Ok(settled(file, HEADER_BYTES)?.and_then(|bytes| Self::parse(key, &bytes)))
    }
}

/// Where the log begins and ends, kept outside of its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    #[serde(rename = "pinfold_audit_head")]
    version: u32,
    /// First record of the oldest segment that was not pruned.
    pub(crate) first: u64,
    /// A record that is on the disk: the last one, or one shortly before it.
    pub(crate) seq: u64,
    /// Its hash.
    pub(crate) hash: ChainHash,
}

impl Head {
    /// Of a log that is still to be written.
    pub(crate) const fn new() -> Self {
        Self { version: VERSION, first: 1, seq: 0, hash: ChainHash::ZERO }
    }

    pub(crate) const fn point(&self) -> Point {
        Point { seq: self.seq, hash: self.hash }
    }

    pub(crate) const fn set(&mut self, point: Point) {
        self.seq = point.seq;
        self.hash = point.hash;
    }

    pub(crate) fn to_bytes(&self, key: &AuditKey) -> Vec<u8> {
        block(key, self, HEAD_BYTES)
    }

    pub(crate) fn parse(key: &AuditKey, bytes: &[u8]) -> Option<Self> {
        let head: Self = unblock(key, bytes, HEAD_BYTES)?;
        let sound = head.version == VERSION && head.first > 0;
        sound.then_some(head)
    }

    /// The number it tells, believed without the key: only to see whether a key is missed.
    pub(crate) fn claimed_seq(bytes: &[u8]) -> Option<u64> {
        let text = bytes.trim_ascii_end();
        let (front, _) = unseal(text, "mac")?;
        let text = [front, b"}"].concat();
        serde_json::from_slice::<Self>(&text).ok().map(|head| head.seq)
    }

    pub(crate) fn write(&self, key: &AuditKey, file: &File) -> io::Result<()> {
        file.write_all_at(&self.to_bytes(key), 0)
    }

    /// `None` when there is none, or not one that this key wrote.
    pub(crate) fn read(key: &AuditKey, path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        Ok(settled(&file, HEAD_BYTES)?.and_then(|bytes| Self::parse(key, &bytes)))
    }
}

/// Reads the block until two readings agree: a writer may be at it. `None` when it is cut short.
fn settled(file: &File, length: usize) -> io::Result<Option<Vec<u8>>> {
    let mut before = Vec::new();
    for _ in 0..64 {
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) if bytes == before => return Ok(Some(bytes)),
            Ok(()) => before = bytes,
            Err(err) if err.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(err) => return Err(err),
        }
    }
    Ok(Some(before))
}

fn block(key: &AuditKey, value: &impl Serialize, length: usize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("numbers and short strings can be written");
    text.pop();
    seal(key, &mut text, 0, "mac");
    assert!(text.len() < length, "the longest numbers fit");
    text.resize(length - 1, b' ');
    text.push(b'\n');
    text
}

fn unblock<T: DeserializeOwned>(key: &AuditKey, bytes: &[u8], length: usize) -> Option<T> {
    let text = bytes.get(..length)?.strip_suffix(b"\n")?.trim_ascii_end();
    let (front, mac) = unseal(text, "mac")?;
    if !genuine(key, front, &mac) {
        return None;
    }
    serde_json::from_slice(&[front, b"}"].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_header_has_room() {
        let key = AuditKey::for_tests();
        let after = Point { seq: u64::MAX - 1, hash: ChainHash::ZERO };
        let mut header = Header::new(after);
        header.seq = u64::MAX;
        header.bytes = u64::MAX;
        header.state = State::Closed;
        let bytes = header.to_bytes(&key);
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::parse(&key, &bytes), Some(header));
        let head = Head { first: u64::MAX, seq: u64::MAX, ..Head::new() };
        let bytes = head.to_bytes(&key);
        assert_eq!(Head::claimed_seq(&bytes), Some(u64::MAX));
        assert_eq!(Head::parse(&key, &bytes), Some(head));
    }

    #[test]
    fn no_byte_of_a_header_can_be_changed() {
        let key = AuditKey::for_tests();
        let header = Header::new(Point::START);
        let bytes = header.to_bytes(&key);
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 2;
            assert_eq!(Header::parse(&key, &changed), None, "byte {place} does not count");
        }
        assert_eq!(Header::parse(&key, &bytes[..511]), None);
        assert_eq!(Head::parse(&key, &bytes), None);
    }
}
