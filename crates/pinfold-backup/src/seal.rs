//! Writing: plain bytes in, head and sealed chunks out.

use std::{
    fmt,
    io::{self, Write},
};

use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::Aead as _};
use pinfold_types::{Error, Result};
use zeroize::Zeroize;

use crate::{CHUNK_BYTES, Key, header::Head, nonce};

/// Encrypts what is written to it. Only [`Sealer::finish`] makes a file that can be opened: one
/// that was dropped before has no end, and is refused.
pub struct Sealer<W> {
    /// There until the end.
    out: Option<W>,
    cipher: ChaCha20Poly1305,
    /// Held back until more comes: the last chunk is marked.
    chunk: Vec<u8>,
    number: u64,
}

impl<W> fmt::Debug for Sealer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<W> Drop for Sealer<W> {
    fn drop(&mut self) {
        self.chunk.zeroize();
    }
}

impl<W: Write> Sealer<W> {
    /// Writes the head of a new file with a salt of its own.
    pub fn new(mut out: W, key: &Key) -> Result<Self> {
        let (head, of_chunks) = Head::new(key)?.write(key)?;
        out.write_all(&head).map_err(Error::internal)?;
        let cipher = ChaCha20Poly1305::new((&*of_chunks).into());
        Ok(Self { out: Some(out), cipher, chunk: Vec::with_capacity(CHUNK_BYTES), number: 0 })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let sealed = self
            .cipher
            .encrypt(&nonce(self.number, last), self.chunk.as_slice())
            .map_err(|_| io::Error::other("a chunk could not be sealed"))?;
        let out = self.out.as_mut().ok_or_else(|| io::Error::other("the file is finished"))?;
        out.write_all(&sealed)?;
        self.number += 1;
        self.chunk.clear();
        Ok(())
    }

    /// Writes the marked last chunk and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        let mut out = self.out.take().ok_or_else(|| io::Error::other("finished twice"))?;
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Does nothing: a chunk goes out when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
