//! Certificates that the operator brings as files.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use pinfold_types::{Error, ErrorCode, Result};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// Most bytes of a file of certificates or keys.
const MAX_BYTES: u64 = 1 << 20;

/// A certificate chain and its key.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State([(u64, u64, i64, i64); 2]);

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// When one cannot be read or holds something else, the key is open to others, or the two do
    /// not belong together.
    pub(super) fn load(&self) -> Result<Arc<CertifiedKey>> {
        let wrong = |path: &Path, what: &str, error: &dyn std::fmt::Display| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{} is not {what}: {error}", path.display()),
            )
        };
        let text = bounded(&self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&self.certificate, "a chain of certificates", &error))?;
        if chain.is_empty() {
            return Err(wrong(&self.certificate, "a chain of certificates", &"it holds none"));
        }
        let text = private(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|error| wrong(&self.key, "a private key", &error))?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map(Arc::new)
            .map_err(|error| wrong(&self.key, "the key of the certificate", &error))
    }

    /// How the files are now; `None` while one is missing.
    pub(super) fn state(&self) -> Option<State> {
        let of = |path: &Path| {
            let found = path.metadata().ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        Some(State([of(&self.certificate)?, of(&self.key)?]))
    }
}

/// The text of a file that only its owner may read: ours, or root's.
pub(super) fn private(path: &Path) -> Result<Vec<u8>> {
    let found = path.metadata().map_err(|error| unreadable(path, &error))?;
    let (uid, own) = (found.uid(), rustix::process::geteuid().as_raw());
    if uid != own && uid != 0 {
        return Err(Error::new(
            ErrorCode::InvalidPath,
            format!("{} belongs to uid {uid}, neither to {own} nor to root", path.display()),
        )
        .hint(format!("chown {own} {}", path.display())));
    }
    if found.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorCode::InvalidPath,
            format!("{} is open to others (mode {:04o})", path.display(), found.mode() & 0o7777),
        )
        .hint(format!("chmod 600 {}", path.display())));
    }
    bounded(path)
}

fn bounded(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| unreadable(path, &error))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("{} is larger than {MAX_BYTES} bytes", path.display()),
        ));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::InvalidPath, format!("{} cannot be read: {error}", path.display()))
}
