//! Compressed streams: what they are, what they expand to, and the digests of both sides.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{Arc, Mutex, PoisonError},
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::{
    error::{ImageError, Result},
    files,
};

/// Most that a stream may grow by when expanded, once it is past [`FREE_BYTES`]. Deflate cannot
/// pass 1032.
const MAX_RATIO: u64 = 2000;
const FREE_BYTES: u64 = 256 << 20;
/// Largest zstd window, as a power of two: 128 MiB, what `zstd --long` makes by default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Counts and hashes what passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap(Arc<Mutex<(Sha256, u64)>>);

impl Tap {
    fn add(&self, piece: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.update(piece);
        state.1 += piece.len() as u64;
    }

    /// Bytes so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// `sha256:…` of what passed.
    pub(crate) fn digest(&self) -> String {
        let hash = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        format!("sha256:{}", files::hex(&hash.finalize()))
    }
}

/// A reader with a tap on it.
#[derive(Debug)]
pub(crate) struct Tapped<R> {
    inner: R,
    tap: Tap,
}

impl<R: Read> Tapped<R> {
    pub(crate) fn new(inner: R) -> (Self, Tap) {
        let tap = Tap::default();
        (Self { inner, tap: tap.clone() }, tap)
    }
}

impl<R: Read> Read for Tapped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.tap.add(&buffer[..got]);
        Ok(got)
    }
}

/// Bounds what comes out by a number of bytes and by its ratio to what went in.
struct Bounded<R> {
    inner: R,
    source: Tap,
    out: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.out += got as u64;
        if self.out > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the archive expands to more than {} bytes", self.limit),
            ));
        }
        if self.out > FREE_BYTES && self.out / MAX_RATIO > self.source.count() {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("the archive expands more than {MAX_RATIO} times"),
            ));
        }
        Ok(got)
    }
}

/// A stream with both its digests.
pub(crate) struct Expanded<'a> {
    /// The plain bytes.
    pub reader: Tapped<Box<dyn Read + 'a>>,
    /// Of the stream as it came.
    pub outer: Tap,
    /// Of the plain bytes.
    pub inner: Tap,
}

/// Expands gzip and zstd by their magic numbers; anything else passes as it is. At most `limit`
/// plain bytes.
pub(crate) fn expand<'a>(input: impl Read + 'a, limit: u64) -> Result<Expanded<'a>> {
    let (input, outer) = Tapped::new(input);
    let mut input = BufReader::with_capacity(128 << 10, input);
    let magic = input.fill_buf().map_err(|err| ImageError::Bad(format!("cannot read: {err}")))?;
    let decoded: Box<dyn Read + 'a> = match magic {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(input)
                .map_err(|err| ImageError::Bad(format!("not a zstd stream: {err}")))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .map_err(|err| ImageError::Bad(format!("not a zstd stream: {err}")))?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(other("xz")),
        [b'B', b'Z', b'h', ..] => return Err(other("bzip2")),
        _ => Box::new(input),
    };
    let bounded: Box<dyn Read + 'a> =
        Box::new(Bounded { inner: decoded, source: outer.clone(), out: 0, limit });
    let (reader, inner) = Tapped::new(bounded);
    Ok(Expanded { reader, outer, inner })
}

fn other(name: &str) -> ImageError {
    ImageError::Bad(format!(
        "the archive is compressed with {name}; gzip, zstd and plain tar are read"
    ))
}
