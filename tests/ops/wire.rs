//! Protobuf's wire format, read without anybody's types: what our own writing is judged by.

/// Fields of a message, in order: number, value of a number, bytes of the rest.
///
/// # Panics
/// With what is not the wire format.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let number = tag >> 3;
        match tag & 7 {
            0 => found.push((number, varint(&mut bytes), &[][..])),
            1 => found.push((number, fixed(&mut bytes, 8), &[])),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).expect("a length");
                found.push((number, 0, take(&mut bytes, length)));
            }
            5 => found.push((number, fixed(&mut bytes, 4), &[])),
            other => panic!("wire type {other} is in no message of ours"),
        }
    }
    found
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    value
}

fn fixed(bytes: &mut &[u8], length: usize) -> u64 {
    take(bytes, length).iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a whole varint");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}
