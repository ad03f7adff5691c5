//! The frames of host and guest, as either of them reads them: any bytes, cut anywhere.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pinfold_proto::frame::{Decoder, MAX_JSON, MAX_PAYLOAD};

/// Everything that comes out before the first error.
fn frames(pieces: &[&[u8]], limit: usize) -> Vec<(u32, Vec<u8>)> {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        assert!(Decoder::wanted(&buffer) <= MAX_PAYLOAD + 16, "room for more than a frame");
        loop {
            match decoder.decode_within(&mut buffer, limit) {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= MAX_JSON.max(limit), "an unbounded frame");
                    found.push((frame.stream, frame.payload.to_vec()));
                }
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    // How the bytes arrive does not change what they say.
    assert_eq!(frames(&[bytes], MAX_PAYLOAD), frames(&[front, back], MAX_PAYLOAD));
    frames(&[front, back], 4096);
});
