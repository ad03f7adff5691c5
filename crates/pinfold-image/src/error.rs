//! What can go wrong with images, a variant per kind of failing step.

use std::{io, path::PathBuf};

use pinfold_types::{Error, ErrorCode};

/// Shorthand inside this room.
pub(crate) type Result<T, E = ImageError> = std::result::Result<T, E>;

/// An image operation that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The filesystem refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The image or archive is malformed, hostile, or does not match its digest.
    #[error("{0}")]
    Bad(String),
    /// A published limit was reached.
    #[error("{0}")]
    Limit(String),
    /// Already in the public shape.
    #[error("{0}")]
    Public(Box<Error>),
}

impl ImageError {
    /// For `map_err`: `action` is a verb, as in "cannot read …".
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// The same for rustix.
    pub(crate) fn errno(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io { action, path, source: errno.into() }
    }
}

impl From<Error> for ImageError {
    fn from(error: Error) -> Self {
        Self::Public(Box::new(error))
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        let text = error.to_string();
        match error {
            ImageError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::new(ErrorCode::DiskFull, format!("{text}: the disk is full"))
                        .hint("free space, or remove images with `pinfold image prune`")
                }
                io::ErrorKind::PermissionDenied => {
                    Self::new(ErrorCode::Unavailable, format!("{text}: permission denied"))
                        .context(source)
                }
                _ => Self::new(ErrorCode::Internal, text.clone())
                    .hint("look for the request id in the server's log")
                    .context(source)
                    .context(text),
            },
            ImageError::Bad(_) => Self::new(ErrorCode::BadImage, text),
            ImageError::Limit(_) => Self::new(ErrorCode::TooLarge, text),
            ImageError::Public(error) => *error,
        }
    }
}
