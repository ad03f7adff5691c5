//! The key, and the head beside it: two files of `$PINFOLD_HOME/keys`.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{error::AuditError, header::Head};
use crate::file::{check_private, look};

/// Bytes of a key.
pub const AUDIT_KEY_BYTES: usize = 32;

/// The key that hashes are made with, and where the head of the log stands.
#[derive(Clone)]
pub struct AuditKey {
    mac: Hmac<Sha256>,
    directory: PathBuf,
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(hidden)")
    }
}

impl AuditKey {
    /// Reads `audit.key` in the directory `keys`, which must be 0700, or makes it (0600) with the
    /// head of an empty log beside it. A key that is missing while the head tells of records is an
    /// error: a new one could not vouch for them.
    pub fn open(keys: &Path) -> pinfold_types::Result<Self> {
        Ok(Self::open_inner(keys)?)
    }

    /// Reads `audit.key` in the directory `keys`.
    pub fn read(keys: &Path) -> pinfold_types::Result<Self> {
        Self::read_inner(keys)?.ok_or_else(|| {
            let path = keys.join("audit.key");
            pinfold_types::Error::not_found("audit key", path.display())
                .hint("the server makes it when it first starts: pinfold up")
        })
    }

    /// A key from elsewhere than its file. The head is looked for in `keys`.
    pub fn from_bytes(bytes: &[u8; AUDIT_KEY_BYTES], keys: impl Into<PathBuf>) -> Self {
        let mac = Hmac::new_from_slice(bytes).expect("HMAC takes keys of any length");
        Self { mac, directory: keys.into() }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::from_bytes(&[7; AUDIT_KEY_BYTES], "keys")
    }

    /// A hash to be fed.
    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        self.mac.clone()
    }

    /// Where the head is.
    pub(crate) fn head_path(&self) -> PathBuf {
        self.directory.join("audit.head")
    }

    fn read_inner(keys: &Path) -> Result<Option<Self>, AuditError> {
        let path = keys.join("audit.key");
        let Some(facts) = look(&path)? else { return Ok(None) };
        check_private(&path, &facts, false)?;
        let bytes = fs::read(&path).map(Zeroizing::new).map_err(AuditError::file("read", &path))?;
        match <&[u8; AUDIT_KEY_BYTES]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Ok(Some(Self::from_bytes(bytes, keys))),
            Err(_) => Err(AuditError::KeyBad { path }),
        }
    }

    fn open_inner(keys: &Path) -> Result<Self, AuditError> {
        private_directory(keys)?;
        if let Some(key) = Self::read_inner(keys)? {
            return Ok(key);
        }
        let path = keys.join("audit.key");
        let head = keys.join("audit.head");
        if let Ok(bytes) = fs::read(&head)
            && Head::claimed_seq(&bytes) != Some(0)
        {
            return Err(AuditError::KeyMissing { path });
        }
        let mut bytes = Zeroizing::new([0; AUDIT_KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|err| AuditError::File {
            step: "draw random bytes for",
            path: path.clone(),
            source: std::io::Error::other(err.to_string()),
        })?;
        let key = Self::from_bytes(&bytes, keys);
        // The head first: a key without a head is then never the work of a crash.
        put(&head, &Head::new().to_bytes(&key))?;
        put(&path, bytes.as_ref())?;
        Ok(key)
    }
}

/// Makes the directory 0700, or sees that it is.
pub(crate) fn private_directory(path: &Path) -> Result<(), AuditError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(path)),
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            let facts = fs::symlink_metadata(path).map_err(AuditError::file("look at", path))?;
            Ok(check_private(path, &facts, true)?)
        }
        Err(err) => Err(AuditError::file("create", path)(err)),
    }
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), AuditError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(AuditError::file("sync", path))
}

/// Puts a whole file at `path`, 0600 from its first byte: after a crash it is there with all its
/// content, or not at all.
pub(crate) fn put(path: &Path, content: &[u8]) -> Result<(), AuditError> {
    let draft = crate::file::beside(path, ".new");
    match fs::remove_file(&draft) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            return Err(AuditError::file("remove", &draft)(err));
        }
        _ => {}
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .map_err(AuditError::file("write", &draft))?;
    fs::rename(&draft, path).map_err(AuditError::file("create", path))?;
    sync_directory(path.parent().unwrap_or(path))
}
