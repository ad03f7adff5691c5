//! The chain: keyed hashes, and the one line that a record is.

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::Mac;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{event::MAX_RECORD_BYTES, key::AuditKey};

/// The hash of a record: HMAC-SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// What stands before the first record.
    pub const ZERO: Self = Self([0; 32]);

    /// Reads 64 lower-case hexadecimal digits.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        HEXLOWER.decode_mut(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChainHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(text.as_bytes())
            .ok_or_else(|| de::Error::custom("a hash is 64 lower-case hexadecimal digits"))
    }
}

/// A place in the chain: the last record there is, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) seq: u64,
    pub(crate) hash: ChainHash,
}

impl Point {
    pub(crate) const START: Self = Self { seq: 0, hash: ChainHash::ZERO };
}

/// Closes `text`, a JSON object without its last brace, with a field that holds its keyed hash.
/// What is hashed is the object without that field.
pub(crate) fn seal(key: &AuditKey, text: &mut Vec<u8>, from: usize, field: &str) -> ChainHash {
    let mut mac = key.mac();
    mac.update(&text[from..]);
    mac.update(b"}");
    let hash = ChainHash(mac.finalize().into_bytes().into());
    text.extend_from_slice(format!(",\"{field}\":\"{hash}\"}}").as_bytes());
    hash
}

/// Bytes of the closing field: its name, 64 digits, four quotes, comma, colon and brace.
const fn closing(field: &str) -> usize {
    field.len() + 71
}

/// Takes off the closing field: what was hashed but its brace, and the hash. Nothing is checked.
pub(crate) fn unseal<'a>(text: &'a [u8], field: &str) -> Option<(&'a [u8], ChainHash)> {
    let (front, back) = text.split_at_checked(text.len().checked_sub(closing(field))?)?;
    let digits = back
        .strip_prefix(b",\"")?
        .strip_prefix(field.as_bytes())?
        .strip_prefix(b"\":\"")?
        .strip_suffix(b"\"}")?;
    Some((front, ChainHash::parse(digits)?))
}

/// Whether the key made this hash of this text; compared in constant time.
pub(crate) fn genuine(key: &AuditKey, front: &[u8], hash: &ChainHash) -> bool {
    let mut mac = key.mac();
    mac.update(front);
    mac.update(b"}");
    mac.verify_slice(&hash.0).is_ok()
}

/// Appends the record of `event` (a JSON object) that follows `after`, and says where it ends in
/// the chain.
pub(crate) fn push_record(
    key: &AuditKey,
    after: Point,
    event: &str,
    buffer: &mut Vec<u8>,
) -> Point {
    let from = buffer.len();
    let seq = after.seq + 1;
    buffer.extend_from_slice(format!("{{\"seq\":{seq},\"prev\":\"{}\",", after.hash).as_bytes());
    let inside = &event.as_bytes()[1..event.len() - 1];
    buffer.extend_from_slice(inside);
    let hash = seal(key, buffer, from, "hash");
    buffer.push(b'\n');
    debug_assert!(buffer.len() - from <= MAX_RECORD_BYTES, "an event within its limits");
    Point { seq, hash }
}

/// A line that has the form of a record. Its hash is not checked yet.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) seq: u64,
    pub(crate) prev: ChainHash,
    pub(crate) hash: ChainHash,
    front: &'a [u8],
}

impl<'a> Line<'a> {
    /// `text` is without its newline.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let (front, hash) = unseal(text, "hash")?;
        let (seq, rest) = seq_of(front)?;
        let rest = rest.strip_prefix(b",\"prev\":\"")?;
        let (prev, rest) = rest.split_at_checked(64)?;
        if !rest.starts_with(b"\",") {
            return None;
        }
        Some(Self { seq, prev: ChainHash::parse(prev)?, hash, front })
    }

    pub(crate) fn genuine(&self, key: &AuditKey) -> bool {
        genuine(key, self.front, &self.hash)
    }
}

/// The number that a record begins with, and what follows it.
pub(crate) fn seq_of(text: &[u8]) -> Option<(u64, &[u8])> {
    let rest = text.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().take(21).take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    if number.first().is_none_or(|first| *first == b'0') {
        return None;
    }
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_every_byte_counts() {
        let key = AuditKey::for_tests();
        let mut buffer = Vec::new();
        let point = push_record(&key, Point::START, r#"{"at":"x","made":["ß"]}"#, &mut buffer);
        let text = buffer.strip_suffix(b"\n").expect("a line").to_vec();
        let line = Line::parse(&text).expect("a record");
        assert_eq!((line.seq, line.prev, line.hash), (1, ChainHash::ZERO, point.hash));
        assert!(line.genuine(&key));
        for place in 0..text.len() {
            let mut changed = text.clone();
            changed[place] ^= 1;
            let taken = Line::parse(&changed).is_some_and(|line| line.genuine(&key));
            assert!(!taken, "byte {place} does not count");
        }
        assert!(!line.genuine(&AuditKey::from_bytes(&[9; 32], "keys")));
    }

    #[test]
    fn what_is_no_record_is_not_taken_for_one() {
        let hash = "0".repeat(64);
        for text in [
            String::new(),
            "{}".into(),
            format!("{{\"seq\":1,\"prev\":\"{hash}\",\"hash\":\"{hash}\"}}"),
            format!("{{\"seq\":01,\"prev\":\"{hash}\",\"a\":1,\"hash\":\"{hash}\"}}"),
            format!(
                "{{\"seq\":99999999999999999999,\"prev\":\"{hash}\",\"a\":1,\"hash\":\"{hash}\"}}"
            ),
            format!("{{\"seq\":1,\"prev\":\"{}\",\"a\":1,\"hash\":\"{hash}\"}}", "A".repeat(64)),
        ] {
            let line = Line::parse(text.as_bytes());
            assert!(line.is_none_or(|line| !line.genuine(&AuditKey::for_tests())), "{text}");
        }
    }
}
