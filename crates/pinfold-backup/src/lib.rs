//! The backup file: an encrypted and authenticated stream, and the archive inside it.
//!
//! [`Sealer`] encrypts what is written to it in bounded chunks, [`Opener`] gives it back and tells
//! a wrong key, a changed byte and a missing end apart. Inside is a POSIX archive as
//! [`archive`] writes it: trees with owners, extended attributes, holes, links and devices, put
//! back below one directory that nothing in the archive can leave. docs/backup.md is the format.
//!
//! Refused here: keys that others can read, files of another format or version, key derivations
//! that would take more memory than [`MAX_KDF_MIB`], names over
//! [`archive::MAX_PATH_BYTES`].
//!
//! ```
//! use std::io::{Read, Write};
//! use pinfold_backup::{BackupKey, Key, Opener, Sealer};
//! # fn main() -> pinfold_types::Result<()> {
//! let key = Key::File(BackupKey::generate()?);
//! let mut sealer = Sealer::new(Vec::new(), &key)?;
//! sealer.write_all(b"what must not be lost").expect("memory takes all");
//! let file = sealer.finish().expect("memory takes all");
//! let mut text = String::new();
//! Opener::new(file.as_slice(), &key)?.read_to_string(&mut text).expect("it is whole");
//! assert_eq!(text, "what must not be lost");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod archive;
mod header;
mod key;
mod open;
mod seal;

pub use header::MAX_KDF_MIB;
pub use key::{BackupKey, Key, Passphrase};
pub use open::Opener;
pub use seal::Sealer;

/// Most plain bytes of one chunk.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Bytes that a chunk grows by.
pub(crate) const TAG_BYTES: usize = 16;

/// The nonce of a chunk: its number, and whether it is the last. The key is used for one file only,
/// so no nonce comes twice (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár).
pub(crate) fn nonce(chunk: u64, last: bool) -> chacha20poly1305::Nonce {
    let mut nonce = [0_u8; 12];
    nonce[3..11].copy_from_slice(&chunk.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce.into()
}
