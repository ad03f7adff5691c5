//! One range of bytes, as `Range` asks for it (RFC 9110 §14).

use http::{HeaderMap, header};

/// What of a whole is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All: nothing was asked for, or in words that a server may leave aside.
    Whole,
    /// `length` bytes from `first` on; at least one.
    Part { first: u64, length: u64 },
    /// Nothing that is there.
    Nothing,
}

/// Whether the headers ask for a range. One that is tied to a validator (`If-Range`) is none,
/// because no validators are given out.
pub(crate) fn asked(headers: &HeaderMap) -> Option<&str> {
    if headers.contains_key(header::IF_RANGE) {
        return None;
    }
    headers.get(header::RANGE)?.to_str().ok()
}

/// Reads `bytes=…` for a whole of `size` bytes. Several ranges, other units and what is malformed
/// mean the whole (RFC 9110 §14.2 lets a server ignore them).
pub(crate) fn wanted(text: &str, size: u64) -> Wanted {
    parse(text, size).unwrap_or(Wanted::Whole)
}

fn parse(text: &str, size: u64) -> Option<Wanted> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |digits: &str| -> Option<u64> {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // What is larger than any file is as good as the largest number.
        Some(digits.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let length = number(last)?.min(size);
        return Some(if length == 0 {
            Wanted::Nothing
        } else {
            Wanted::Part { first: size - length, length }
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= size {
        return Some(Wanted::Nothing);
    }
    Some(Wanted::Part { first, length: last.min(size - 1) - first + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        let part = |first, length| Wanted::Part { first, length };
        for (text, size, meaning) in [
            ("bytes=0-499", 10_000, part(0, 500)),
            ("bytes=9500-", 10_000, part(9500, 500)),
            ("bytes=-500", 10_000, part(9500, 500)),
            ("Bytes=0-0", 10_000, part(0, 1)),
            ("bytes=9999-99999999999999999999999", 10_000, part(9999, 1)),
            ("bytes=-99999999999999999999999", 3, part(0, 3)),
            ("bytes=10000-", 10_000, Wanted::Nothing),
            ("bytes=-0", 10_000, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=-1", 0, Wanted::Nothing),
            ("bytes=5-4", 10, Wanted::Whole),
            ("bytes=0-1,3-4", 10, Wanted::Whole),
            ("bytes=+1-2", 10, Wanted::Whole),
            ("bytes=a-", 10, Wanted::Whole),
            ("bytes=-", 10, Wanted::Whole),
            ("lines=0-1", 10, Wanted::Whole),
            ("bytes", 10, Wanted::Whole),
            ("", 10, Wanted::Whole),
        ] {
            assert_eq!(wanted(text, size), meaning, "{text:?} of {size}");
        }
    }
}
