//! The frame codec: bounded before allocation, total over any bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes in front of each payload.
pub const HEADER_BYTES: usize = 9;
/// Most bytes of one frame's payload.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Most bytes of one JSON text, over all its frames.
pub const MAX_JSON: usize = 8 << 20;
/// Most bytes of the handshake's first frame, before the peer has shown the secret.
pub const MAX_HELLO: usize = 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a stream; a request as JSON.
    Open = 1,
    /// A message on an open stream, JSON.
    Message = 2,
    /// The guest's last word on a stream: the reply as JSON.
    Close = 3,
    /// Ends a stream at once: an error as JSON, or nothing.
    Reset = 4,
    /// A piece of a JSON text; more follows in the next frame, which is of the same stream.
    Part = 5,
    /// Standard input, or the raw bytes of a stream that has one kind. Empty: no more.
    Data0 = 8,
    /// Standard output.
    Data1 = 9,
    /// Standard error.
    Data2 = 10,
    /// Credit given back: a big-endian `u32`.
    Window = 16,
    /// Are you there? Up to eight bytes, which come back.
    Ping = 17,
    /// The answer to a ping.
    Pong = 18,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Open,
        Self::Message,
        Self::Close,
        Self::Reset,
        Self::Part,
        Self::Data0,
        Self::Data1,
        Self::Data2,
        Self::Window,
        Self::Ping,
        Self::Pong,
    ];

    /// Whether it carries bytes that cost credit.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Data0 | Self::Data1 | Self::Data2)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are not frames. The connection cannot go on after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length beyond the limit.
    #[error("a frame of {length} bytes is longer than {limit}")]
    TooLong {
        /// As announced.
        length: usize,
        /// The most this frame may have.
        limit: usize,
    },
    /// A kind nobody defined.
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    /// A window frame without four bytes, or a ping longer than eight.
    #[error("a {kind:?} frame cannot have {length} bytes")]
    BadLength {
        /// Kind.
        kind: Kind,
        /// Its length.
        length: usize,
    },
    /// Between two parts of a JSON text came a frame of another stream or without JSON.
    #[error("a text of stream {stream} was interrupted")]
    Interrupted {
        /// Whose text it was.
        stream: u32,
    },
    /// More credit was used or given than there is.
    #[error("stream {stream} went beyond its window")]
    Window {
        /// Which stream.
        stream: u32,
    },
}

/// One frame as received. Parts have been joined: `kind` is never [`Kind::Part`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which stream; 0 is the connection itself.
    pub stream: u32,
    /// What it is.
    pub kind: Kind,
    /// Its bytes, a slice of the receive buffer.
    pub payload: Bytes,
}

/// Writes the header of a frame.
///
/// `length` must not be above [`MAX_PAYLOAD`]; a longer one is cut, so that a peer never sees an
/// unbounded length.
pub fn header(length: usize, stream: u32, kind: Kind) -> [u8; HEADER_BYTES] {
    debug_assert!(length <= MAX_PAYLOAD, "payloads are split before they get here");
    let length = u32::try_from(length.min(MAX_PAYLOAD)).unwrap_or(0);
    let mut bytes = [kind as u8; HEADER_BYTES];
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..8].copy_from_slice(&stream.to_be_bytes());
    bytes
}

/// Turns received bytes into frames and joins the parts of long JSON texts.
#[derive(Debug, Default)]
pub struct Decoder {
    text: Option<(u32, BytesMut)>,
}

struct Header {
    length: usize,
    stream: u32,
    kind: Kind,
}

impl Decoder {
    fn peek(buffer: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
        let Some((mut head, _)) = buffer.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let length = head.get_u32() as usize;
        let stream = head.get_u32();
        let byte = head.get_u8();
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        let kind = Kind::from_byte(byte).ok_or(FrameError::UnknownKind(byte))?;
        let fine = match kind {
            Kind::Window => length == 4,
            Kind::Ping | Kind::Pong => length <= 8,
            _ => true,
        };
        if !fine {
            return Err(FrameError::BadLength { kind, length });
        }
        Ok(Some(Header { length, stream, kind }))
    }

    /// How many bytes the frame at the front of `buffer` has in all, header included; 0 when its
    /// header is not complete. Readers make room for this much at once.
    pub fn wanted(buffer: &[u8]) -> usize {
        Self::peek(buffer, MAX_PAYLOAD).ok().flatten().map_or(0, |head| head.length + HEADER_BYTES)
    }

    /// Takes the first frame off `buffer`, without copying its payload.
    ///
    /// `None` when more bytes are needed.
    ///
    /// # Errors
    /// Any [`FrameError`] is final.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        self.decode_within(buffer, MAX_PAYLOAD)
    }

    /// [`Self::decode`] with a tighter limit, for peers that have not authenticated.
    ///
    /// # Errors
    /// Any [`FrameError`] is final.
    pub fn decode_within(
        &mut self,
        buffer: &mut BytesMut,
        limit: usize,
    ) -> Result<Option<Frame>, FrameError> {
        loop {
            let Some(Header { length, stream, kind }) = Self::peek(buffer, limit)? else {
                return Ok(None);
            };
            if buffer.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            buffer.advance(HEADER_BYTES);
            let payload = buffer.split_to(length);
            let joins = matches!(kind, Kind::Open | Kind::Message | Kind::Close | Kind::Reset);
            match self.text.take() {
                None if kind == Kind::Part => self.text = Some((stream, payload)),
                None => return Ok(Some(Frame { stream, kind, payload: payload.freeze() })),
                Some((owner, mut text)) => {
                    if owner != stream || !(joins || kind == Kind::Part) {
                        return Err(FrameError::Interrupted { stream: owner });
                    }
                    let total = text.len() + length;
                    if total > MAX_JSON {
                        return Err(FrameError::TooLong { length: total, limit: MAX_JSON });
                    }
                    text.extend_from_slice(&payload);
                    if joins {
                        return Ok(Some(Frame { stream, kind, payload: text.freeze() }));
                    }
                    self.text = Some((owner, text));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SendQueue;
    use proptest::prelude::*;

    fn feed(wire: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut buffer, mut frames) =
            (Decoder::default(), BytesMut::new(), Vec::new());
        let mut rest = wire;
        let mut cuts = cuts.iter().copied().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(1).clamp(1, rest.len()));
            rest = later;
            buffer.extend_from_slice(now);
            while let Some(frame) = decoder.decode(&mut buffer)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn lengths_are_refused_before_anything_is_stored() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 8][..]);
        let refused = Decoder::default().decode(&mut buffer).expect_err("4 GiB");
        assert_eq!(refused, FrameError::TooLong { length: 0xffff_ffff, limit: MAX_PAYLOAD });
        let mut buffer = BytesMut::from(&header(MAX_HELLO + 1, 0, Kind::Message)[..]);
        assert!(Decoder::default().decode_within(&mut buffer, MAX_HELLO).is_err());
    }

    #[test]
    fn kinds_with_a_fixed_shape_are_held_to_it() {
        for (kind, length) in [(Kind::Window, 3), (Kind::Window, 5), (Kind::Ping, 9)] {
            let mut wire = header(length, 1, kind).to_vec();
            wire.resize(wire.len() + length, 0);
            assert_eq!(feed(&wire, &[64]), Err(FrameError::BadLength { kind, length }));
        }
        let mut wire = header(0, 1, Kind::Ping).to_vec();
        wire[8] = 99;
        assert_eq!(feed(&wire, &[64]), Err(FrameError::UnknownKind(99)));
    }

    #[test]
    fn long_texts_come_back_whole_and_interruptions_are_refused() {
        let text = vec![b'x'; 3 * MAX_PAYLOAD + 5];
        let mut queue = SendQueue::default();
        queue.push_json(7, Kind::Open, &text).expect("below the limit");
        let frames = feed(&queue.to_vec(), &[MAX_PAYLOAD]).expect("frames");
        assert_eq!(frames.len(), 1);
        assert_eq!((frames[0].stream, frames[0].kind), (7, Kind::Open));
        assert_eq!(frames[0].payload, text);

        let mut wire = header(1, 7, Kind::Part).to_vec();
        wire.push(b'{');
        for (stream, kind) in [(9, Kind::Open), (7, Kind::Data0), (7, Kind::Ping)] {
            let mut cut = wire.clone();
            cut.extend_from_slice(&header(0, stream, kind));
            assert_eq!(feed(&cut, &[64]), Err(FrameError::Interrupted { stream: 7 }));
        }
        let mut endless = BytesMut::new();
        for _ in 0..=MAX_JSON / MAX_PAYLOAD {
            endless.extend_from_slice(&header(MAX_PAYLOAD, 7, Kind::Part));
            endless.resize(endless.len() + MAX_PAYLOAD, b' ');
        }
        assert!(matches!(feed(&endless, &[1 << 20]), Err(FrameError::TooLong { .. })));
    }

    fn frames() -> impl Strategy<Value = Vec<(u32, usize, Vec<u8>)>> {
        prop::collection::vec(
            (any::<u32>(), 0..3_usize, prop::collection::vec(any::<u8>(), 0..300)),
            0..20,
        )
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_never_panic(
            wire in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(1..50_usize, 1..8),
        ) {
            let _ = feed(&wire, &cuts);
        }

        #[test]
        fn what_is_sent_arrives_however_it_is_cut(
            sent in frames(), cuts in prop::collection::vec(1..400_usize, 1..8),
        ) {
            let kinds = [Kind::Data0, Kind::Data1, Kind::Data2];
            let mut queue = SendQueue::default();
            for (stream, kind, payload) in &sent {
                queue.push_data(*stream, kinds[*kind], Bytes::from(payload.clone()));
            }
            let got = feed(&queue.to_vec(), &cuts).expect("what we wrote ourselves");
            prop_assert_eq!(got.len(), sent.len());
            for (frame, (stream, kind, payload)) in got.iter().zip(&sent) {
                prop_assert_eq!(frame.stream, *stream);
                prop_assert_eq!(frame.kind, kinds[*kind]);
                prop_assert_eq!(&frame.payload[..], &payload[..]);
            }
        }
    }
}
