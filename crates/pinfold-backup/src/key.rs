//! What opens a backup: a key from a file, or a passphrase.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use data_encoding::HEXLOWER;
use pinfold_types::{Error, ErrorCode, Result};
use zeroize::{Zeroize, Zeroizing};

/// Most bytes of a passphrase.
const MAX_PASSPHRASE_BYTES: usize = 4096;
/// Least bytes of one.
const MIN_PASSPHRASE_BYTES: usize = 8;

/// 32 random bytes. Never printed; wiped after use.
#[derive(Clone)]
pub struct BackupKey([u8; BackupKey::LEN]);

/// A passphrase. Never printed; wiped after use.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// Either of them.
#[derive(Clone, Debug)]
pub enum Key {
    /// From a key file.
    File(BackupKey),
    /// Stretched by Argon2id.
    Passphrase(Passphrase),
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupKey(hidden)")
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(hidden)")
    }
}

impl Drop for BackupKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl BackupKey {
    /// Bytes of a key.
    pub const LEN: usize = 32;

    /// A new key from the system's random bytes.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; Self::LEN];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        let key = Self(bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// The key in a file: 64 hexadecimal digits and a newline. The file must be the caller's own,
    /// and nobody else's to read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_private(path, 2 * Self::LEN + 2)?;
        let digits = text.strip_suffix(b"\n").unwrap_or(&text);
        let malformed = || {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{} does not hold a backup key", path.display()),
            )
            .hint("a key file holds 64 hexadecimal digits")
        };
        let bytes = Zeroizing::new(HEXLOWER.decode(digits).map_err(|_| malformed())?);
        Ok(Self(bytes.as_slice().try_into().map_err(|_| malformed())?))
    }

    /// The key in a file, made 0600 with a new key where there is none.
    pub fn read_or_make(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::new(
                ErrorCode::Unavailable,
                format!("{} cannot be made: {error}", path.display()),
            )
        };
        if !path.exists() {
            if let Some(parent) = path.parent() {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(parent)
                    .map_err(failed)?;
            }
            // Under another name first: a key file that exists is whole.
            let fresh = path.with_extension(format!("new-{}", std::process::id()));
            let text = Zeroizing::new(format!("{}\n", HEXLOWER.encode(&Self::generate()?.0)));
            let written = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&fresh)
                .and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                })
                // Whoever was faster has made the key.
                .and_then(|()| match std::fs::hard_link(&fresh, path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    other => other,
                });
            let _gone = std::fs::remove_file(&fresh);
            written.map_err(failed)?;
        }
        Self::read(path)
    }

    pub(crate) const fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(crate) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl Passphrase {
    /// The first line of a file that only its owner can read; 8 to 4096 bytes.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_private(path, MAX_PASSPHRASE_BYTES + 2)?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Self::new(line).map_err(|error| Error {
            message: format!("{}: {}", path.display(), error.message),
            ..error
        })
    }

    /// A passphrase of 8 to 4096 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        if !(MIN_PASSPHRASE_BYTES..=MAX_PASSPHRASE_BYTES).contains(&bytes.len()) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("a passphrase has {MIN_PASSPHRASE_BYTES} to {MAX_PASSPHRASE_BYTES} bytes"),
            )
            .hint("six random words make a good one"));
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// A small file that only its owner can read (GX-02: refused as ssh does otherwise).
fn read_private(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error: io::Error| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("{} cannot be read: {error}", path.display()),
        )
    };
    let file = File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if facts.is_file() {
        let uid = rustix::process::geteuid().as_raw();
        if facts.mode() & 0o077 != 0 || (facts.uid() != uid && uid != 0) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "{} is open to others (mode {:04o}, uid {})",
                    path.display(),
                    facts.mode() & 0o7777,
                    facts.uid()
                ),
            )
            .hint(format!("chmod 600 {}", path.display())));
        }
    }
    let mut text = Zeroizing::new(Vec::with_capacity(most));
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut text).map_err(failed)?;
    if text.len() == most {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("{} is longer than {} bytes", path.display(), most - 1),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_private() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("keys/backup.key");
        let made = BackupKey::read_or_make(&path).expect("made");
        let again = BackupKey::read_or_make(&path).expect("read");
        assert_eq!(made.expose(), again.expose());
        let bits = path.metadata().expect("a file").permissions().mode();
        assert_eq!(bits & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(home.path().join("keys")).expect("a directory").count(), 1);
        assert_eq!(format!("{made:?}"), "BackupKey(hidden)");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        let loose = BackupKey::read(&path).expect_err("open to a group");
        assert!(loose.hint.is_some_and(|hint| hint.starts_with("chmod 600")), "{}", loose.message);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("key");
        for text in ["", "hunter2-hunter2", &"ab".repeat(31), &"zz".repeat(32), &"ab".repeat(40)] {
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
            let refused = BackupKey::read(&path).expect_err(text);
            assert!(text.is_empty() || !refused.to_string().contains(text), "{refused}");
        }
        std::fs::write(&path, "correct horse battery\r\nmore").expect("a file");
        let phrase = Passphrase::read(&path).expect("a line");
        assert_eq!(phrase.expose(), b"correct horse battery");
        assert!(Passphrase::new(b"short").is_err());
    }
}
