//! `BTRFS_IOC_TREE_SEARCH_V2`, read with every length checked.

use std::{io, os::fd::BorrowedFd};

use super::{READ, WRITE, call, request};

const SEARCH_BUFFER: usize = 15 * 1024;
const SEARCH_HEADER: usize = 32;
const TREE_SEARCH_V2: u64 = request(READ | WRITE, 17, 112);

#[repr(C)]
struct SearchArgs {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    items: u32,
    unused: u32,
    more_unused: [u64; 4],
    buffer_size: u64,
    buffer: [u8; SEARCH_BUFFER],
}

/// Keys from the first to the second of each pair, inclusive. The kernel compares keys as
/// wholes, so keys between two corners come along: whoever searches looks again.
pub(super) struct Range {
    pub(super) objects: (u64, u64),
    pub(super) types: (u32, u32),
    pub(super) offsets: (u64, u64),
}

/// Where an item stands in its tree.
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u32,
    pub(super) offset: u64,
}

/// The little-endian number at byte `at` of an item.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// Calls `each` with every item of the range until it answers `false`.
pub(super) fn search(
    inside: BorrowedFd<'_>,
    tree: u64,
    range: &Range,
    mut each: impl FnMut(&Key, &[u8]) -> bool,
) -> io::Result<()> {
    let mut args = Box::new(SearchArgs {
        tree,
        min_object: range.objects.0,
        max_object: range.objects.1,
        min_offset: range.offsets.0,
        max_offset: range.offsets.1,
        min_transid: 0,
        max_transid: u64::MAX,
        min_type: range.types.0,
        max_type: range.types.1,
        items: u32::MAX,
        unused: 0,
        more_unused: [0; 4],
        buffer_size: SEARCH_BUFFER as u64,
        buffer: [0; SEARCH_BUFFER],
    });
    loop {
        args.items = u32::MAX;
        args.buffer_size = SEARCH_BUFFER as u64;
        call(inside, TREE_SEARCH_V2, &raw mut *args)?;
        let mut at = 0;
        let mut last = None;
        for _ in 0..args.items {
            let Some((key, item)) = parse_item(&args.buffer, at) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the kernel's tree search answer does not fit its buffer",
                ));
            };
            at += SEARCH_HEADER + item.len();
            if !each(&key, item) {
                return Ok(());
            }
            last = Some(key);
        }
        // Go on behind the last key; the order is object, type, offset.
        let Some(Key { object, kind, offset }) = last else { return Ok(()) };
        (args.min_object, args.min_type, args.min_offset) = match (offset, kind) {
            (u64::MAX, u32::MAX) => match object.checked_add(1) {
                Some(next) => (next, 0, 0),
                None => return Ok(()),
            },
            (u64::MAX, kind) => (object, kind + 1, 0),
            (offset, kind) => (object, kind, offset + 1),
        };
        if (args.min_object, args.min_type) > (args.max_object, args.max_type) {
            return Ok(());
        }
    }
}

fn parse_item(buffer: &[u8], at: usize) -> Option<(Key, &[u8])> {
    let header = buffer.get(at..at.checked_add(SEARCH_HEADER)?)?;
    let long = |from: usize| -> Option<u64> {
        Some(u64::from_ne_bytes(header.get(from..from + 8)?.try_into().ok()?))
    };
    let short = |from: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(header.get(from..from + 4)?.try_into().ok()?))
    };
    let length = usize::try_from(short(28)?).ok()?;
    let start = at + SEARCH_HEADER;
    let item = buffer.get(start..start.checked_add(length)?)?;
    Some((Key { object: long(8)?, offset: long(16)?, kind: short(24)? }, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_answer_that_lies_about_its_length_is_refused() {
        let mut buffer = vec![0_u8; 64];
        buffer[28..32].copy_from_slice(&40_u32.to_ne_bytes());
        assert!(parse_item(&buffer, 0).is_none());
        buffer[28..32].copy_from_slice(&32_u32.to_ne_bytes());
        assert_eq!(parse_item(&buffer, 0).map(|(_, item)| item.len()), Some(32));
        assert!(parse_item(&buffer, usize::MAX - 4).is_none());
    }
}
