//! The way from a program inside to the server: a socket here, whose connections the host asks
//! for one by one. What may be done over it is the host's to decide; nothing is decided here.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use pinfold_proto::API_SOCKET;
use pinfold_types::{Error, ErrorCode};
use tokio::net::UnixListener;

use crate::{channel::Stream, failure, net};

/// Listens. Whatever lies in the way was left on the disk by an earlier boot.
///
/// # Errors
/// When the workspace's own disk does not allow it.
pub fn listen() -> io::Result<UnixListener> {
    let path = Path::new(API_SOCKET);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Every user inside: what counts is the token.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Waits for the next connection and joins it to the stream.
pub async fn serve(listener: Option<&UnixListener>, stream: Stream) {
    let Some(listener) = listener else {
        let error = Error::new(ErrorCode::Unprocessable, "this workspace has no API socket");
        return stream.fail(&error);
    };
    let accepted = tokio::select! {
        accepted = listener.accept() => accepted,
        () = stream.gone() => return,
    };
    match accepted {
        Ok((socket, _)) => {
            stream.message(&());
            net::join(stream, socket, "talk to a program inside the workspace").await;
        }
        Err(error) => stream.fail(&failure::on("take a connection inside the workspace", &error)),
    }
}
