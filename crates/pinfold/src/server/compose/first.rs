//! The first token: made by a start that other machines can reach and nobody has a token for
//! (AUTH-03). Its text is shown once on a terminal, or written once to a file that is made for it;
//! what is kept is its keyed hash, as of any other.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use pinfold_auth::{Caller, ObjectRef, PeerCredentials, Surface, ops};
use pinfold_control::Service;
use pinfold_node::LocalNode;
use pinfold_types::{
    Error, ErrorCode, Result,
    access::{CreateToken, NewToken},
};

use super::tcp;
use crate::{args::server::Up, output::Output};

/// What it is called.
const NAME: &str = "first";

/// Where its text goes.
#[derive(Debug)]
pub(super) enum First {
    /// Standard error, which is a terminal.
    Terminal,
    /// A file that is not there yet.
    File(PathBuf),
}

impl First {
    /// Whether one is wanted, and where it goes; before anything is listened on.
    ///
    /// # Errors
    /// When other machines could reach the server, nobody has a token, and there is neither a
    /// terminal nor a file to give one to: a log is no place for it.
    pub(super) fn wanted(
        addresses: &[SocketAddr],
        has_credentials: bool,
        args: &Up,
        output: &Output,
    ) -> Result<Option<Self>> {
        if has_credentials {
            return Ok(None);
        }
        if let Some(path) = args.first_token.as_ref().filter(|_| !addresses.is_empty()) {
            // One that is there may be read by others, or be needed.
            return match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(Some(Self::File(path.clone())))
                }
                Err(error) => Err(unwritable(path, &error)),
                Ok(_) => Err(unwritable(path, &io::ErrorKind::AlreadyExists.into())),
            };
        }
        let seen = !args.on_demand && !output.quiet() && !output.json();
        let shown = seen && io::stderr().is_terminal();
        match tcp::check_credentials(addresses, false) {
            Ok(()) => Ok(None),
            Err(_) if shown => Ok(Some(Self::Terminal)),
            Err(error) => Err(error),
        }
    }

    /// Makes it, and gives it away.
    pub(super) async fn give(self, service: &Service<LocalNode>, output: &Output) -> Result<()> {
        let id = match self {
            Self::Terminal => {
                let made = make(service).await?;
                output.note("nobody had a token yet; this one is shown only now:\n");
                output.note(format!("    {}\n", text(&made)?));
                made.info.id
            }
            Self::File(path) => {
                let failed = |error: io::Error| unwritable(&path, &error);
                // Before the token: what cannot be given away is not made.
                let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
                let mut file = file.map_err(failed)?;
                let made = make(service).await?;
                writeln!(file, "{}", text(&made)?).map_err(failed)?;
                file.sync_all().map_err(failed)?;
                output.note(format!("the first token is in {}", path.display()));
                made.info.id
            }
        };
        output.note(format!("`pinfold token revoke {id}` ends it and what was made of it"));
        tracing::info!(%id, "the first token was made");
        Ok(())
    }
}

/// Its text, which is there when it was just made.
fn text(made: &NewToken) -> Result<&str> {
    made.token.as_deref().ok_or_else(|| Error::internal("a new token came without its text"))
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::new(
        ErrorCode::InvalidPath,
        format!("the first token cannot be written to {}: {error}", path.display()),
    )
    .hint("give a file that is not there yet, in a directory that is yours")
}

async fn make(service: &Service<LocalNode>) -> Result<NewToken> {
    let uid = rustix::process::geteuid().as_raw();
    let owner = service.access().authenticate_peer(PeerCredentials { uid })?;
    let caller = Caller::new(owner, Surface::Unix);
    let grant = service.grant::<ops::TokenCreate>(&caller, ObjectRef::server()).await?;
    let request = CreateToken { name: NAME.to_owned(), ..CreateToken::default() };
    service.create_token(grant, request).await
}
