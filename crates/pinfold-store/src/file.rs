//! The file: who may see it, and how a new one comes to be (AUTH-10).

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::StoreError;

/// What lies at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: a new home.
    Nothing,
    /// A database, closed in order.
    Closed,
    /// A database with a log beside it: its last user did not close it, or still runs.
    Unclean,
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn file_error<'a>(
    step: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> StoreError + use<'a> {
    move |source| StoreError::File { step, path: path.to_owned(), source }
}

/// `None` when nothing is there.
pub(crate) fn look(path: &Path) -> Result<Option<fs::Metadata>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(facts) => Ok(Some(facts)),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        Err(err) => Err(file_error("look at", path)(err)),
    }
}

pub(crate) fn check_private(
    path: &Path,
    facts: &fs::Metadata,
    directory: bool,
) -> Result<(), StoreError> {
    let refuse = |problem: String, mend: String| {
        Err(StoreError::Permissions { path: path.to_owned(), problem, mend })
    };
    let (right_kind, noun, mode) = if directory {
        (facts.is_dir(), "directory", "700")
    } else {
        (facts.is_file(), "regular file", "600")
    };
    if !right_kind {
        return refuse(
            format!("is not a {noun}"),
            format!("put a {noun} in its place, not a link or anything else"),
        );
    }
    let me = rustix::process::geteuid().as_raw();
    if facts.uid() != me {
        return refuse(
            format!("belongs to uid {}, not to uid {me}", facts.uid()),
            format!("chown {me} {}", path.display()),
        );
    }
    let bits = facts.mode() & 0o7777;
    if bits & 0o077 != 0 {
        return refuse(
            format!("has mode {bits:04o}: others can reach it"),
            format!("chmod {mode} {}", path.display()),
        );
    }
    Ok(())
}

/// Refuses what others could read or swap, and says what is there.
pub(crate) fn inspect(path: &Path) -> Result<Found, StoreError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let facts = fs::metadata(directory).map_err(file_error("look at", directory))?;
    check_private(directory, &facts, true)?;
    let main = look(path)?;
    let mut log_there = false;
    for suffix in ["-wal", "-shm"] {
        let side = beside(path, suffix);
        if let Some(facts) = look(&side)? {
            check_private(&side, &facts, false)?;
            log_there |= suffix == "-wal" && facts.len() > 0;
        }
    }
    let Some(facts) = main else {
        return if log_there {
            Err(StoreError::MainFileMissing { path: path.to_owned() })
        } else {
            Ok(Found::Nothing)
        };
    };
    check_private(path, &facts, false)?;
    check_header(path, &facts)?;
    Ok(if log_there { Found::Unclean } else { Found::Closed })
}

/// Sixteen bytes say that it is SQLite's (<https://www.sqlite.org/fileformat.html#magic_header_string>).
/// SQLite itself would take an empty file for an empty database; we never leave one behind.
fn check_header(path: &Path, facts: &fs::Metadata) -> Result<(), StoreError> {
    use std::io::Read;
    let damaged = |problem: &str| {
        Err(StoreError::Damaged { path: path.to_owned(), problem: problem.to_owned() })
    };
    if facts.len() == 0 {
        return damaged("it is empty");
    }
    let mut magic = [0; 16];
    let mut file = fs::File::open(path).map_err(file_error("open", path))?;
    match file.read_exact(&mut magic) {
        Ok(()) if &magic == b"SQLite format 3\0" => Ok(()),
        Ok(()) => damaged("it does not begin like a SQLite database"),
        Err(err) if err.kind() == ErrorKind::UnexpectedEof => damaged("it is cut short"),
        Err(err) => Err(file_error("read", path)(err)),
    }
}

/// Makes the empty file under a temporary name, 0600 from its first byte; SQLite gives the files
/// beside it the same mode. Leftovers of an attempt that died are removed first.
pub(crate) fn begin_new(path: &Path) -> Result<PathBuf, StoreError> {
    let draft = beside(path, ".new");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let old = beside(&draft, suffix);
        match fs::remove_file(&old) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(file_error("remove", &old)(err)),
        }
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(file_error("create", &draft))?;
    Ok(draft)
}

/// Gives the finished file its name. After this returns, a crash finds either nothing or a whole
/// database.
pub(crate) fn finish_new(draft: &Path, path: &Path) -> Result<(), StoreError> {
    fs::File::open(draft).and_then(|file| file.sync_all()).map_err(file_error("sync", draft))?;
    fs::rename(draft, path).map_err(file_error("create", path))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|dir| dir.sync_all()).map_err(file_error("sync", directory))
}

/// Length that the log is given before SQLite opens it.
pub(crate) const LOG_BYTES: u64 = 4 << 20;

/// Gives the log its working length, so that commits overwrite instead of growing it. Zeros after
/// the last frame are no frame, because their salt is wrong
/// (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).
pub(crate) fn lengthen_log(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::FileExt;
    let log = beside(path, "-wal");
    let failed = |err| file_error("lengthen", &log)(err);
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&log)
        .map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if let Some(missing) = LOG_BYTES.checked_sub(length).filter(|missing| *missing > 0) {
        let zeros = vec![0; usize::try_from(missing).expect("at most four mebibytes")];
        file.write_all_at(&zeros, length).map_err(failed)?;
        file.sync_all().map_err(failed)?;
    }
    Ok(())
}
