//! The token: from the environment or from a file that only its owner reads, never from the
//! command line, which every process of a machine can see.

use std::{io::Read, os::unix::fs::MetadataExt, path::Path};

use http::HeaderValue;
use pinfold_types::{Error, ErrorCode, Result};
use zeroize::Zeroizing;

/// Most bytes of a token.
const MAX_BYTES: u64 = 4096;
const VARIABLE: &str = "PINFOLD_TOKEN";

/// `Authorization` of the token in `file`, else of the one in `PINFOLD_TOKEN`.
pub(super) fn find(file: Option<&Path>) -> Result<HeaderValue> {
    let text = match file {
        Some(path) => read(path)?,
        None => Zeroizing::new(std::env::var(VARIABLE).unwrap_or_default()),
    };
    let text = text.trim();
    let wrong = |why: &str| {
        let from = file.map_or_else(|| VARIABLE.to_owned(), |path| path.display().to_string());
        Error::new(ErrorCode::Unauthenticated, format!("{from} holds no token: {why}"))
            .hint("set PINFOLD_TOKEN, or give --token-file FILE")
    };
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("it has characters that no token has"));
    }
    let header = Zeroizing::new(format!("Bearer {text}"));
    let mut value = HeaderValue::from_str(&header).map_err(Error::internal)?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path) -> Result<Zeroizing<String>> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorCode::InvalidPath, format!("{} cannot be read: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorCode::InvalidPath,
            format!("{} is open to others (mode {:04o})", path.display(), found.mode() & 0o7777),
        )
        .hint(format!("chmod 600 {}", path.display())));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
