//! System errors in the words of the house.

use std::io;

use pinfold_types::{Error, ErrorCode, name::excerpt};
use rustix::io::Errno;

/// An error about a path: which operation, on what, why.
pub fn on_path(doing: &str, path: &str, error: &io::Error) -> Error {
    let code = code(error);
    let made = Error::new(code, format!("cannot {doing} {:?}: {}", excerpt(path), reason(error)));
    match Errno::from_io_error(error) {
        Some(Errno::DQUOT) => made.hint("remove files, or raise disk_bytes"),
        // A quota says DQUOT, so this is a filesystem's own end: the pool's, or a tmpfs'.
        Some(Errno::NOSPC) => made.hint(
            "remove files; where its disk has not reached disk_bytes, the pool itself is full: \
             `pinfold doctor`",
        ),
        _ => made,
    }
}

/// An error about anything else.
pub fn on(doing: &str, error: &io::Error) -> Error {
    Error::new(code(error), format!("cannot {doing}: {}", reason(error)))
}

/// The reason as people say it, without the number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => {
            let mut letters = words.chars();
            letters
                .next()
                .map(|first| first.to_lowercase().chain(letters).collect())
                .unwrap_or_default()
        }
        None => text,
    }
}

fn code(error: &io::Error) -> ErrorCode {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => ErrorCode::NotFound,
        Some(Errno::EXIST | Errno::NOTEMPTY) => ErrorCode::AlreadyExists,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ErrorCode::Forbidden,
        Some(Errno::NOSPC | Errno::DQUOT) => ErrorCode::DiskFull,
        Some(Errno::FBIG | Errno::NAMETOOLONG | Errno::TOOBIG) => ErrorCode::TooLarge,
        Some(
            Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::INVAL | Errno::XDEV | Errno::NXIO,
        ) => ErrorCode::Unprocessable,
        Some(Errno::BUSY | Errno::TXTBSY) => ErrorCode::Conflict,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => ErrorCode::QuotaExceeded,
        Some(Errno::CONNREFUSED | Errno::TIMEDOUT) => ErrorCode::Upstream,
        _ => match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => ErrorCode::Unprocessable,
            _ => ErrorCode::Internal,
        },
    }
}
