//! Reading: a file in, plain bytes out, each only after it was authenticated.

use std::{
    fmt,
    io::{self, Read},
};

use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::Aead as _};
use pinfold_types::{Error, ErrorCode, Result};
use zeroize::Zeroizing;

use crate::{
    CHUNK_BYTES, Key, TAG_BYTES,
    header::{HEAD_BYTES, Head},
    nonce,
};

const SEALED_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// Decrypts a backup file. Bytes come out of whole, authentic chunks only, and the end is an end
/// only where the writer put it.
pub struct Opener<R> {
    from: R,
    cipher: ChaCha20Poly1305,
    plain: Zeroizing<Vec<u8>>,
    at: usize,
    sealed: Vec<u8>,
    number: u64,
    ended: bool,
    failed: bool,
}

impl<R> fmt::Debug for Opener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("number", &self.number).finish_non_exhaustive()
    }
}

fn damaged(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads until `buffer` is full or the input ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

impl<R: Read> Opener<R> {
    /// Reads the head and checks it with the key.
    pub fn new(mut from: R, key: &Key) -> Result<Self> {
        let mut head = [0; HEAD_BYTES];
        let got = fill(&mut from, &mut head).map_err(|error| {
            Error::new(ErrorCode::InvalidArgument, format!("the backup cannot be read: {error}"))
        })?;
        if got < HEAD_BYTES {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("this is not a backup: it has {got} bytes, and its head is cut off"),
            ));
        }
        let of_chunks = Head::read(&head)?.open(&head, key)?;
        Ok(Self {
            from,
            cipher: ChaCha20Poly1305::new((&*of_chunks).into()),
            plain: Zeroizing::new(Vec::new()),
            at: 0,
            // One byte more than a chunk tells whether another follows.
            sealed: Vec::with_capacity(SEALED_BYTES + 1),
            number: 0,
            ended: false,
            failed: false,
        })
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let carried = self.sealed.len();
        self.sealed.resize(SEALED_BYTES + 1, 0);
        let got = carried + fill(&mut self.from, &mut self.sealed[carried..])?;
        self.sealed.truncate(got);
        let chunk = self.number;
        let last = got <= SEALED_BYTES;
        let sealed = &self.sealed[..got.min(SEALED_BYTES)];
        if let Ok(plain) = self.cipher.decrypt(&nonce(chunk, last), sealed) {
            self.plain = Zeroizing::new(plain);
            self.at = 0;
            self.number += 1;
            self.ended = last;
            self.sealed.drain(..got.min(SEALED_BYTES));
            return Ok(());
        }
        let cut = last && self.cipher.decrypt(&nonce(chunk, false), sealed).is_ok();
        let early = !last && self.cipher.decrypt(&nonce(chunk, true), sealed).is_ok();
        Err(damaged(if cut || got == 0 {
            format!("the backup is cut off after chunk {chunk}: its end is missing")
        } else if early {
            format!("something follows the end of the backup, chunk {chunk}")
        } else if last {
            format!("the backup is damaged or cut off in chunk {chunk}")
        } else {
            format!("the backup is damaged in chunk {chunk}")
        }))
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if self.failed {
                return Err(damaged("the backup is damaged".into()));
            }
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            self.next_chunk().inspect_err(|_| self.failed = true)?;
        }
        let taken = buffer.len().min(self.plain.len() - self.at);
        buffer[..taken].copy_from_slice(&self.plain[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::{BackupKey, Passphrase, Sealer};

    fn sealed(key: &Key, plain: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), key).expect("a head");
        sealer.write_all(plain).expect("memory");
        sealer.finish().expect("memory")
    }

    fn opened(key: &Key, file: &[u8]) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        let mut opener = Opener::new(file, key).map_err(|error| error.message)?;
        opener.read_to_end(&mut plain).map_err(|error| error.to_string())?;
        Ok(plain)
    }

    #[test]
    fn what_was_sealed_comes_back_and_nothing_else_does() {
        let key = Key::File(BackupKey::generate().expect("random bytes"));
        let other = Key::File(BackupKey::generate().expect("random bytes"));
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
            let file = sealed(&key, &plain);
            assert_eq!(opened(&key, &file), Ok(plain), "{len}");
            assert!(opened(&other, &file).expect_err("another key").contains("does not open"));
            for cut in [0, 10, HEAD_BYTES, HEAD_BYTES + 5, file.len() - 1] {
                let why = opened(&key, &file[..cut]).expect_err("cut off");
                assert!(why.contains("cut off"), "{len} {cut}: {why}");
            }
            if len > CHUNK_BYTES {
                let boundary = HEAD_BYTES + SEALED_BYTES;
                let why = opened(&key, &file[..boundary]).expect_err("cut off between chunks");
                assert!(why.contains("its end is missing"), "{why}");
            }
            let mut longer = file.clone();
            longer.push(0);
            assert!(opened(&key, &longer).is_err(), "{len}");
            let mut twice = file.clone();
            twice.extend_from_slice(&file[HEAD_BYTES..]);
            assert!(opened(&key, &twice).is_err(), "{len}");
        }
    }

    #[test]
    fn chunks_cannot_change_places() {
        let key = Key::File(BackupKey::generate().expect("random bytes"));
        let file = sealed(&key, &vec![7; 3 * CHUNK_BYTES]);
        let mut swapped = file.clone();
        swapped[HEAD_BYTES..HEAD_BYTES + SEALED_BYTES]
            .copy_from_slice(&file[HEAD_BYTES + SEALED_BYTES..HEAD_BYTES + 2 * SEALED_BYTES]);
        assert!(opened(&key, &swapped).expect_err("moved").contains("damaged in chunk 0"));
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_keys_do_not_mix() {
        let phrase = |text: &str| Key::Passphrase(Passphrase::new(text.as_bytes()).expect("long"));
        let file = sealed(&phrase("correct horse"), b"staple");
        assert_eq!(opened(&phrase("correct horse"), &file), Ok(b"staple".to_vec()));
        assert!(opened(&phrase("incorrect horse"), &file).is_err());
        let key = Key::File(BackupKey::generate().expect("random bytes"));
        assert!(opened(&key, &file).expect_err("a key").contains("passphrase"));
        let mut costly = file.clone();
        costly[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(opened(&phrase("correct horse"), &costly).expect_err("4 TiB").contains("bounds"));
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unseen(at in 0..400_usize, flip in 1..=255_u8) {
            let key = Key::File(BackupKey::from_bytes([3; 32]));
            let file = sealed(&key, &[9; 200]);
            let mut changed = file.clone();
            let at = at % file.len();
            changed[at] ^= flip;
            prop_assert!(opened(&key, &changed).is_err());
        }
    }
}
