//! Files, as the workspace's root sees them.
//!
//! What may wait for a disk runs on a few other threads. Paths are resolved by the kernel inside
//! the workspace's own root: links lead nowhere that the workload could not go itself. What walks
//! trees (remove, archives) goes by descriptors and never follows a link.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use pinfold_proto::Request;
use pinfold_types::{
    Error, ErrorCode,
    api::{FileInfo, FileKind},
    exec::check_path,
};

use crate::{channel::Stream, failure::on_path};

mod list;
mod remove;
mod transfer;
mod tree;
pub(crate) use tree::open_dir;
mod watch;

/// Serves a request about files.
pub async fn serve(stream: Stream, request: Request) {
    match request {
        Request::Stat { path } => stream.answer(blocking(move || stat(&path)).await).await,
        Request::List { path, after, limit } => {
            stream.answer(blocking(move || list::list(&path, after.as_deref(), limit)).await).await;
        }
        Request::Read { path, offset, length } => {
            transfer::read(stream, path, offset, length).await;
        }
        Request::Write { path, options } => transfer::write(stream, path, options).await,
        Request::Mkdir { path, mode, parents } => {
            stream.answer(blocking(move || mkdir(&path, mode, parents)).await).await;
        }
        Request::Rename { from, to } => {
            stream.answer(blocking(move || rename(&from, &to)).await).await;
        }
        Request::Remove { path, recursive } => {
            stream.answer(blocking(move || remove::remove(&path, recursive)).await).await;
        }
        Request::Chmod { path, mode } => {
            stream.answer(blocking(move || chmod(&path, mode)).await).await;
        }
        Request::Chown { path, uid, gid } => {
            stream.answer(blocking(move || chown(&path, uid, gid)).await).await;
        }
        Request::Watch { path, recursive } => watch::watch(stream, path, recursive).await,
        other => stream.fail(&Error::new(
            ErrorCode::Unprocessable,
            format!("the workspace's guest does not know {other:?}"),
        )),
    }
}

/// Runs `work` where it may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
}

/// Facts as callers see them; `target` is read for links.
pub(crate) fn info(path: &Path, facts: &fs::Metadata) -> FileInfo {
    let kind = facts.file_type();
    let target = if kind.is_symlink() { fs::read_link(path).ok() } else { None };
    FileInfo {
        name: path.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into()),
        kind: if kind.is_file() {
            FileKind::File
        } else if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_symlink() {
            FileKind::Symlink
        } else if kind.is_fifo() {
            FileKind::Fifo
        } else if kind.is_socket() {
            FileKind::Socket
        } else {
            FileKind::Device
        },
        size_bytes: facts.size(),
        mode: facts.mode() & 0o7777,
        uid: facts.uid(),
        gid: facts.gid(),
        modified_ms: facts
            .mtime()
            .saturating_mul(1000)
            .saturating_add(facts.mtime_nsec() / 1_000_000),
        target: target.map(|target| target.to_string_lossy().into_owned()),
    }
}

fn stat(path: &str) -> Result<FileInfo, Error> {
    check_path(path)?;
    let facts = fs::symlink_metadata(path).map_err(|error| on_path("look at", path, &error))?;
    Ok(info(Path::new(path), &facts))
}

fn mode_bits(mode: u32) -> Result<fs::Permissions, Error> {
    if mode > 0o7777 {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("0o{mode:o} is not a mode, which is 0 to 0o7777"),
        ));
    }
    Ok(fs::Permissions::from_mode(mode))
}

/// Makes missing directories above `path`, 0o755.
pub(crate) fn make_parents(path: &str) -> Result<(), Error> {
    match Path::new(path).parent() {
        Some(parent) => fs::create_dir_all(parent)
            .map_err(|error| on_path("make the directories above", path, &error)),
        None => Ok(()),
    }
}

fn mkdir(path: &str, mode: Option<u32>, parents: bool) -> Result<(), Error> {
    check_path(path)?;
    let mode = mode.map(mode_bits).transpose()?;
    if parents {
        make_parents(path)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error)
            if parents
                && error.kind() == io::ErrorKind::AlreadyExists
                && Path::new(path).is_dir() =>
        {
            return Ok(());
        }
        Err(error) => return Err(on_path("make the directory", path, &error)),
    }
    // Not what the mask left of it: what was asked for.
    match mode {
        Some(mode) => fs::set_permissions(path, mode)
            .map_err(|error| on_path("set the mode of", path, &error)),
        None => Ok(()),
    }
}

fn rename(from: &str, to: &str) -> Result<(), Error> {
    check_path(from)?;
    check_path(to)?;
    fs::rename(from, to).map_err(|error| {
        let made = on_path("move", from, &error);
        if error.kind() == io::ErrorKind::CrossesDevices {
            return made.hint("it lies on another file system: copy it with `mv` inside");
        }
        made
    })
}

fn chmod(path: &str, mode: u32) -> Result<(), Error> {
    check_path(path)?;
    fs::set_permissions(path, mode_bits(mode)?)
        .map_err(|error| on_path("set the mode of", path, &error))
}

fn chown(path: &str, uid: u32, gid: u32) -> Result<(), Error> {
    check_path(path)?;
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Error::new(ErrorCode::InvalidArgument, "4294967295 is not an id"));
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
        .map_err(|error| on_path("set the owner of", path, &error))
}
