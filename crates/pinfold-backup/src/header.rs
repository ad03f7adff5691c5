//! The head of a backup file, and the keys that it and what opens it come to.

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pinfold_types::{Error, ErrorCode, Result};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{BackupKey, CHUNK_BYTES, Key};

/// The first bytes of every backup.
const MAGIC: &[u8; 8] = b"PFBACKUP";
const VERSION: u16 = 1;
/// A key that was derived.
type Derived = Zeroizing<[u8; 32]>;

/// Bytes of the head, its authentication included.
pub(crate) const HEAD_BYTES: usize = 92;
const SIGNED_BYTES: usize = 60;
/// Most memory that a file may ask of the derivation of its key, in MiB.
pub const MAX_KDF_MIB: u32 = 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;
/// The second choice of RFC 9106 §4: 64 MiB, 3 passes, 4 lanes.
const KDF: (u32, u32, u32) = (64 << 10, 3, 4);

/// How the key is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    /// Argon2id: memory in KiB, passes, lanes.
    Passphrase(u32, u32, u32),
}

/// A head that was read but not yet believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    kind: Kind,
    salt: [u8; 32],
}

fn bad(what: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("this is not a backup: {what}"))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    for part in parts {
        mac.update(part);
    }
    mac
}

impl Head {
    /// The head of a new file.
    pub(crate) fn new(key: &Key) -> Result<Self> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(Error::internal)?;
        let kind = match key {
            Key::File(_) => Kind::File,
            Key::Passphrase(_) => Kind::Passphrase(KDF.0, KDF.1, KDF.2),
        };
        Ok(Self { kind, salt })
    }

    fn signed(&self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        let (kind, memory, passes, lanes) = match self.kind {
            Kind::File => (1, 0, 0, 0),
            Kind::Passphrase(memory, passes, lanes) => (2, memory, passes, lanes),
        };
        bytes[10] = kind;
        bytes[12..16].copy_from_slice(&memory.to_be_bytes());
        bytes[16..20].copy_from_slice(&passes.to_be_bytes());
        bytes[20..24].copy_from_slice(&lanes.to_be_bytes());
        let chunk = u32::try_from(CHUNK_BYTES).expect("64 KiB");
        bytes[24..28].copy_from_slice(&chunk.to_be_bytes());
        bytes[28..].copy_from_slice(&self.salt);
        bytes
    }

    /// The head as it is written, and the key of the chunks.
    pub(crate) fn write(&self, key: &Key) -> Result<([u8; HEAD_BYTES], Zeroizing<[u8; 32]>)> {
        let (of_head, of_chunks) = self.derive(key)?;
        let signed = self.signed();
        let tag = mac(&*of_head, &[&signed]).finalize().into_bytes();
        let mut bytes = [0; HEAD_BYTES];
        bytes[..SIGNED_BYTES].copy_from_slice(&signed);
        bytes[SIGNED_BYTES..].copy_from_slice(&tag);
        Ok((bytes, of_chunks))
    }

    /// Reads a head. Nothing of it is believed before [`Head::open`] has checked it.
    pub(crate) fn read(bytes: &[u8; HEAD_BYTES]) -> Result<Self> {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if &bytes[..8] != MAGIC {
            return Err(bad("it begins with other bytes"));
        }
        let version = u16::from_be_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the backup has version {version}; this program reads {VERSION}"),
            )
            .hint("use the version of pinfold that made it"));
        }
        let (memory, passes, lanes) = (word(12), word(16), word(20));
        let kind = match bytes[10] {
            1 if (memory, passes, lanes) == (0, 0, 0) => Kind::File,
            2 => {
                let fits = memory <= MAX_KDF_MIB << 10
                    && (1..=MAX_PASSES).contains(&passes)
                    && (1..=MAX_LANES).contains(&lanes)
                    && memory >= 8 * lanes;
                if !fits {
                    return Err(bad("the cost of its key is out of bounds"));
                }
                Kind::Passphrase(memory, passes, lanes)
            }
            _ => return Err(bad("its kind of key is unknown")),
        };
        if bytes[11] != 0 || u32::try_from(CHUNK_BYTES) != Ok(word(24)) {
            return Err(bad("its chunks have another size"));
        }
        let mut salt = [0; 32];
        salt.copy_from_slice(&bytes[28..SIGNED_BYTES]);
        Ok(Self { kind, salt })
    }

    /// The key of the chunks, where `key` is the one that the file was made with.
    pub(crate) fn open(&self, bytes: &[u8; HEAD_BYTES], key: &Key) -> Result<Zeroizing<[u8; 32]>> {
        let wants = match (self.kind, key) {
            (Kind::File, Key::Passphrase(_)) => Some("a key file: --key-file"),
            (Kind::Passphrase(..), Key::File(_)) => Some("a passphrase: --passphrase-file"),
            _ => None,
        };
        if let Some(wants) = wants {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the backup opens with {wants}"),
            ));
        }
        let (of_head, of_chunks) = self.derive(key)?;
        let checked =
            mac(&*of_head, &[&bytes[..SIGNED_BYTES]]).verify_slice(&bytes[SIGNED_BYTES..]);
        checked.map_err(|_| {
            Error::new(ErrorCode::Forbidden, "the key does not open this backup")
                .hint("give the key or passphrase that it was made with; else its head is damaged")
        })?;
        Ok(of_chunks)
    }

    /// The keys of head and chunks: HKDF (RFC 5869) over the file's salt.
    fn derive(&self, key: &Key) -> Result<(Derived, Derived)> {
        let secret = match (key, self.kind) {
            (Key::File(key), _) => key.clone(),
            (Key::Passphrase(phrase), Kind::Passphrase(memory, passes, lanes)) => {
                let params = Params::new(memory, passes, lanes, Some(BackupKey::LEN))
                    .map_err(Error::internal)?;
                let mut stretched = Zeroizing::new([0; BackupKey::LEN]);
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(phrase.expose(), &self.salt, &mut *stretched)
                    .map_err(Error::internal)?;
                BackupKey::from_bytes(*stretched)
            }
            (Key::Passphrase(_), Kind::File) => return Err(Error::internal("a key of no kind")),
        };
        let extracted = Zeroizing::new(<[u8; 32]>::from(
            mac(&self.salt, &[secret.expose()]).finalize().into_bytes(),
        ));
        let expand = |info: &[u8]| {
            let block = mac(&*extracted, &[info, &[1]]).finalize().into_bytes();
            Zeroizing::new(<[u8; 32]>::from(block))
        };
        Ok((expand(b"pinfold backup 1 head"), expand(b"pinfold backup 1 chunks")))
    }
}
