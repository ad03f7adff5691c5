//! One frame's header, as pure functions.

use super::{MAX_CONTROL_BYTES, Role, WsError};

/// Kinds of frame (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message before.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The end.
    Close,
    /// Wants a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether it may come between the fragments of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Last fragment of its message.
    pub fin: bool,
    /// Kind.
    pub opcode: Opcode,
    /// Present on frames from a client.
    pub mask: Option<[u8; 4]>,
    /// Payload bytes that follow.
    pub length: usize,
}

/// Decodes a header at the start of `bytes`: the header and its own length, or `None` when more
/// bytes are needed. `role` is ours, `most` the longest payload that is taken. Lengths are checked before anything is allocated.
pub fn decode_header(
    bytes: &[u8],
    role: Role,
    most: usize,
) -> Result<Option<(Header, usize)>, WsError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(WsError::Protocol("reserved bits are set"));
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(WsError::Protocol("unknown opcode"))?;
    let fin = first & 0x80 != 0;
    let masked = second & 0x80 != 0;
    if masked != (role == Role::Server) {
        return Err(WsError::Protocol("masking is for frames from a client, and required there"));
    }
    let (length, rest, used) = match second & 0x7f {
        126 => {
            let Some((field, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*field)), rest, 4)
        }
        127 => {
            let Some((field, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*field), rest, 10)
        }
        short => (u64::from(short), rest, 2),
    };
    let length = usize::try_from(length).map_err(|_| WsError::TooLarge)?;
    if opcode.is_control() && (!fin || length > MAX_CONTROL_BYTES) {
        return Err(WsError::Protocol("a control frame is fragmented or too long"));
    }
    if length > most {
        return Err(WsError::TooLarge);
    }
    if !masked {
        return Ok(Some((Header { fin, opcode, mask: None, length }, used)));
    }
    let Some((mask, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    Ok(Some((Header { fin, opcode, mask: Some(*mask), length }, used + 4)))
}

/// Encodes the header of a whole message into `out`, which must be empty.
pub fn encode_header(opcode: Opcode, length: usize, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode.bits());
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        out.push(bit | short);
    } else if let Ok(middle) = u16::try_from(length) {
        out.push(bit | 0x7e);
        out.extend_from_slice(&middle.to_be_bytes());
    } else {
        out.push(bit | 0x7f);
        out.extend_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
}

/// Masks or unmasks in place; the same operation (RFC 6455 §5.3).
pub(super) fn apply_mask(data: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let value = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight")) ^ wide;
        chunk.copy_from_slice(&value.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
