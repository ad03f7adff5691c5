//! Keys of a home: 32 random bytes each, in a file of its own that only its owner reads (AUTH-10,
//! GX-02).

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use pinfold_auth::TokenKey;
use pinfold_types::{Error, ErrorCode, Result};
use zeroize::Zeroizing;

use crate::{home::Home, private};

/// The key for hashes of tokens. It is made at the first start; without it every token is void.
pub(super) fn token_key(home: &Home) -> Result<TokenKey> {
    key(&home.keys(), "token.key").map(|bytes| TokenKey::new(*bytes))
}

/// Reads a key, or makes it. One that others can read is refused.
fn key(dir: &Path, name: &str) -> Result<Zeroizing<[u8; 32]>> {
    let path = dir.join(name);
    let failed = |what: &str, error: &io::Error| {
        Error::new(ErrorCode::Unavailable, format!("{} cannot be {what}: {error}", path.display()))
            .hint("the keys of a home must be files that its owner can read and write")
    };
    private::directory(dir).map_err(|error| failed("made", &error))?;
    let mut bytes = Zeroizing::new([0; 32]);
    match File::options().read(true).custom_flags(libc_nofollow()).open(&path) {
        Ok(mut file) => {
            let facts = file.metadata().map_err(|error| failed("read", &error))?;
            if facts.mode() & 0o077 != 0 || facts.uid() != rustix::process::geteuid().as_raw() {
                return Err(Error::new(
                    ErrorCode::Forbidden,
                    format!("{} can be read by others", path.display()),
                )
                .hint(format!("chmod 600 {}", path.display())));
            }
            if facts.len() != 32 {
                return Err(Error::new(
                    ErrorCode::Unavailable,
                    format!(
                        "{} is not a key: it has {} bytes, not 32",
                        path.display(),
                        facts.len()
                    ),
                )
                .hint("put it back from a backup; without it every token has to be made anew"));
            }
            file.read_exact(bytes.as_mut_slice()).map_err(|error| failed("read", &error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(bytes.as_mut_slice())
                .map_err(|error| Error::internal(format!("no random bytes: {error}")))?;
            private::write(&path, bytes.as_slice()).map_err(|error| failed("written", &error))?;
        }
        Err(error) => return Err(failed("read", &error)),
    }
    Ok(bytes)
}

/// A link where a key should be is somebody else's doing.
const fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_random() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("keys");
        let first = key(&dir, "a.key").expect("made");
        assert_eq!(key(&dir, "a.key").expect("read"), first);
        assert_ne!(key(&dir, "b.key").expect("another"), first);
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("a.key"))), (0o700, 0o600));
    }

    #[test]
    fn a_loose_short_or_linked_key_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("keys");
        key(&dir, "a.key").expect("made");
        let path = dir.join("a.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("loosened");
        let loose = key(&dir, "a.key").expect_err("loose");
        assert!(loose.hint.is_some_and(|hint| hint.starts_with("chmod 600")), "{}", loose.message);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mended");
        std::fs::write(&path, b"short").expect("cut");
        assert!(key(&dir, "a.key").expect_err("short").message.contains("5 bytes"));
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink(dir.join("b.key"), &path).expect("a link");
        assert!(key(&dir, "a.key").is_err(), "a link");
    }
}
