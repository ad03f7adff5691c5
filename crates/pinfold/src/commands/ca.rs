//! `ca`: the authority that the server's own certificates come from.

use std::io::Write;

use pinfold_types::{Error, ErrorCode, Result};

use super::Context;
use crate::{args::server::Ca, tls::Authority};

pub(super) fn ca(context: &Context, args: &Ca) -> Result<()> {
    let authority = Authority::find(&context.home)?.ok_or_else(|| {
        Error::new(
            ErrorCode::NotFound,
            format!("{} has no authority of its own", context.home.path().display()),
        )
        .hint("one is made when a server starts with tls = \"local-ca\" in [server]")
    })?;
    match args {
        Ca::Show => {
            let value = serde_json::json!({"fingerprint": authority.fingerprint()});
            context.output.show(&value, |_| format!("{}\n", authority.fingerprint()))
        }
        Ca::Export { file: None } => context.output.line(authority.pem().trim_end()),
        Ca::Export { file: Some(path) } => {
            let failed = |error: std::io::Error| {
                Error::new(
                    ErrorCode::InvalidPath,
                    format!("{} cannot be written: {error}", path.display()),
                )
            };
            let mut file = std::fs::File::create_new(path).map_err(failed)?;
            file.write_all(authority.pem().as_bytes()).map_err(failed)?;
            context.output.note(format!("written to {}", path.display()));
            Ok(())
        }
    }
}
