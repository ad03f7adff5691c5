//! Records of a pax header: `LENGTH KEY=VALUE\n`, the length in decimal and including itself.

use std::io;

use super::{MAX_PAX_BYTES, MAX_RANGES};

pub(super) fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the archive is malformed: {}", why.into()))
}

pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Key and value of each record.
pub(super) fn records(mut text: &[u8]) -> io::Result<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let space = text.iter().take(12).position(|byte| *byte == b' ');
        let space = space.ok_or_else(|| bad("a record without its length"))?;
        let length = number(&text[..space])?;
        let length = usize::try_from(length).map_err(|_| bad("a record is too long"))?;
        if length > text.len() || length < space + 3 || text[length - 1] != b'\n' {
            return Err(bad("a record of a wrong length"));
        }
        let record = &text[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=');
        let equals = equals.ok_or_else(|| bad("a record without a value"))?;
        found.push((&record[..equals], &record[equals + 1..]));
        text = &text[length..];
    }
    Ok(found)
}

/// A plain decimal number.
pub(super) fn number(text: &[u8]) -> io::Result<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| bad("not a number"))
}

pub(super) fn time(seconds: i64, nanos: u32) -> String {
    if seconds < 0 && nanos > 0 {
        // -1.5 is one and a half before; the kernel counts up from the second below.
        let whole = (seconds + 1).unsigned_abs();
        return format!("-{whole}.{:09}", 1_000_000_000 - nanos);
    }
    format!("{seconds}.{nanos:09}")
}

pub(super) fn parse_time(text: &[u8]) -> io::Result<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|byte| *byte == b'.').ok_or_else(|| bad("not a time"))?;
    let far = || bad("a time out of range");
    let whole = i64::try_from(number(&text[..dot])?).map_err(|_| far())?;
    let part = &text[dot + 1..];
    if part.len() != 9 {
        return Err(bad("not a time"));
    }
    let nanos = u32::try_from(number(part)?).map_err(|_| far())?;
    Ok(match (negative, nanos) {
        (false, nanos) => (whole, nanos),
        (true, 0) => (-whole, 0),
        (true, nanos) => (-whole - 1, 1_000_000_000 - nanos),
    })
}

/// The map of a file with holes as GNU tar 1.0 writes it in front of the data: the number of
/// ranges, then offset and length of each, a line each, filled up to a block.
pub(super) fn map(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut text = format!("{}\n", ranges.len()).into_bytes();
    for (offset, length) in ranges {
        text.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
    }
    text.resize(text.len().next_multiple_of(super::BLOCK), 0);
    text
}

/// Ranges in order, none over another or past the end.
pub(super) fn check_ranges(ranges: &[(u64, u64)], size: u64) -> io::Result<()> {
    let mut end = 0;
    for (offset, length) in ranges {
        let next = offset.checked_add(*length).ok_or_else(|| bad("a range past all files"))?;
        if *offset < end || next > size {
            return Err(bad("ranges out of order"));
        }
        end = next;
    }
    Ok(())
}

pub(super) fn check_count(count: u64) -> io::Result<usize> {
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= MAX_RANGES)
        .ok_or_else(|| bad(format!("a file has more than {MAX_RANGES} ranges")))
}

pub(super) fn check_length(length: u64) -> io::Result<usize> {
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_PAX_BYTES)
        .ok_or_else(|| bad(format!("a pax header is over {MAX_PAX_BYTES} bytes")))
}
