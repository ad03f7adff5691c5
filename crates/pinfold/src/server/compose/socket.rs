//! The unix socket's file. Only who holds the home's lock touches it.

use std::{
    fs, io,
    os::{
        linux::fs::MetadataExt,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixListener as StdListener,
        },
    },
    path::PathBuf,
};

use pinfold_types::{Error, ErrorCode, Result};
use tokio::net::UnixListener;

use crate::home::Home;

/// A bound socket; dropping it takes the file away, unless another server has replaced it.
#[derive(Debug)]
pub(super) struct Listening {
    path: PathBuf,
    inode: u64,
    listener: StdListener,
}

/// Binds `server.sock`, 0600, in place of a stale one. It gets its name only when it listens, so
/// that a client never finds one that refuses.
pub(super) fn listen(home: &Home) -> Result<Listening> {
    let path = home.socket();
    let failed = |error: io::Error| {
        Error::new(
            ErrorCode::Unavailable,
            format!("{} cannot be listened on: {error}", path.display()),
        )
    };
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(Error::new(
                ErrorCode::InvalidPath,
                format!("{} is not a socket", path.display()),
            )
            .hint("move it away"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = StdListener::bind(&fresh).map_err(failed)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let inode = fresh.symlink_metadata().map_err(failed)?.st_ino();
    fs::rename(&fresh, &path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Listening { path, inode, listener })
}

impl Listening {
    /// The socket for the server's loop.
    pub(super) fn listener(&self) -> Result<UnixListener> {
        self.listener.try_clone().and_then(UnixListener::from_std).map_err(Error::internal)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.path.symlink_metadata().is_ok_and(|found| found.st_ino() == self.inode) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}
