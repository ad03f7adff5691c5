//! `cp`: tar semantics between this machine and a workspace.

mod pack;

use std::{
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pinfold_types::{
    Error, ErrorCode, Result,
    api::{FileInfo, FileKind},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    Context,
    archive::{Tree, Unpacked, no_directory, unpack},
    workspace_path,
};
use crate::{
    args::{
        files::{Cp, Side},
        values::WorkspaceRef,
    },
    client::{Body, body_channel, lost, query},
    output::progress::Progress,
};

/// Type of a tar stream (RFC 6838 has none registered).
const TAR: &str = "application/x-tar";

pub(super) async fn cp(context: &Context, args: Cp) -> Result<()> {
    match (args.source, args.destination) {
        (Side::Here(from), Side::Inside(workspace, to)) => {
            put(context, from, &workspace, &to).await
        }
        (Side::Inside(workspace, from), Side::Here(to)) => {
            get(context, &workspace, &from, &to).await
        }
        (Side::Stream, Side::Inside(workspace, to)) => {
            let (writer, body) = body_channel();
            let copying = tokio::task::spawn_blocking(move || {
                let mut writer = writer;
                match io::copy(&mut io::stdin().lock(), &mut writer) {
                    Ok(_) => io::Write::flush(&mut writer),
                    Err(error) => {
                        let text = error.to_string();
                        writer.abort(error);
                        Err(io::Error::other(text))
                    }
                }
            });
            upload(context, &workspace, &to, body).await?;
            copying.await.map_err(Error::internal)?.map_err(|error| {
                Error::new(ErrorCode::InvalidArgument, format!("standard input: {error}"))
            })
        }
        (Side::Inside(workspace, from), Side::Stream) => {
            if io::stdout().is_terminal() {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    "a tar stream is not written to a terminal",
                )
                .hint("redirect it: pinfold cp … - > file.tar"));
            }
            let mut body = download(context, &workspace, &from).await?;
            while let Some(chunk) = chunk(&mut body).await? {
                context.output.bytes(&chunk)?;
            }
            Ok(())
        }
        (Side::Inside(..), Side::Inside(..)) => Err(two_sides("both sides are in workspaces")
            .hint("go by way of a stream: pinfold cp A:/x - | pinfold cp - B:/y")),
        (Side::Here(_) | Side::Stream, Side::Here(_) | Side::Stream) => {
            Err(two_sides("neither side is in a workspace").hint("write WORKSPACE:/PATH"))
        }
    }
}

fn two_sides(why: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("nothing to copy between: {why}"))
}

async fn stat(context: &Context, workspace: &WorkspaceRef, path: &str) -> Result<FileInfo> {
    let rest = format!("/files/stat{}", query(&[("path", path)]));
    context.client.get(&workspace_path(workspace, &rest)).await
}

/// Whether `path` inside is a directory, through a link where it is one.
async fn is_directory(context: &Context, workspace: &WorkspaceRef, path: &str) -> Result<bool> {
    match stat(context, workspace, path).await {
        Ok(info) if info.kind == FileKind::Symlink => {
            let through = format!("{}/.", path.trim_end_matches('/'));
            Ok(stat(context, workspace, &through).await.is_ok())
        }
        Ok(info) => Ok(info.kind == FileKind::Directory),
        Err(error) if error.code == ErrorCode::NotFound && !path.ends_with('/') => Ok(false),
        Err(error) => Err(error),
    }
}

async fn put(context: &Context, from: String, workspace: &WorkspaceRef, to: &str) -> Result<()> {
    let source = PathBuf::from(&from);
    source.symlink_metadata().map_err(|error| {
        Error::new(ErrorCode::NotFound, format!("{} cannot be read: {error}", source.display()))
    })?;
    let contents = from.ends_with("/.") || from == ".";
    let inside = match is_directory(context, workspace, to).await {
        Ok(inside) => inside,
        Err(error) => return Err(missing(context, workspace, to, error).await),
    };
    let (directory, name) = if inside {
        let name = if contents { None } else { Some(base_name(&source)?) };
        (to.to_owned(), name)
    } else {
        let (parent, name) = to.trim_end_matches('/').rsplit_once('/').unwrap_or(("", to));
        let parent = if parent.is_empty() { "/" } else { parent };
        (parent.to_owned(), Some(name.to_owned()))
    };
    let (writer, body) = body_channel();
    let (tell, mut done) = mpsc::channel::<u64>(16);
    let packing = tokio::task::spawn_blocking(move || {
        pack::pack(&source, name.as_deref(), writer, |bytes| {
            // A slow bar must not slow the copy.
            let _full = tell.try_send(bytes);
        })
    });
    let mut progress = Progress::new(&context.output);
    let sending = upload(context, workspace, &directory, body);
    tokio::pin!(sending);
    let sent = loop {
        tokio::select! {
            sent = &mut sending => break sent,
            Some(bytes) = done.recv() => progress.bytes(&from, bytes, None),
        }
    };
    progress.clear();
    // What went wrong here explains why the server saw a broken upload.
    let packed = packing.await.map_err(Error::internal)?;
    let skipped = match packed {
        Err(error) if error.code != ErrorCode::Cancelled => return Err(error),
        packed => {
            sent?;
            packed?
        }
    };
    left_out(context, skipped);
    Ok(())
}

/// Says what a copy does not bring.
fn left_out(context: &Context, skipped: u64) {
    if skipped > 0 {
        context.output.note(format!("{skipped} devices, sockets or pipes were left out"));
    }
}

/// The error, or that there is no such directory inside, where that is why.
async fn missing(
    context: &Context,
    workspace: &WorkspaceRef,
    directory: &str,
    error: Error,
) -> Error {
    // Not found may be the workspace, too.
    let absent = error.code == ErrorCode::NotFound
        && stat(context, workspace, directory)
            .await
            .is_err_and(|error| error.code == ErrorCode::NotFound)
        && stat(context, workspace, "/").await.is_ok();
    if !absent {
        return error;
    }
    let plain = directory.trim_end_matches('/');
    Error::new(ErrorCode::NotFound, format!("there is no directory {plain}"))
        .hint(format!("make it: pinfold exec {workspace} -- mkdir -p {plain}"))
}

fn base_name(path: &Path) -> Result<String> {
    let whole = path.canonicalize().ok();
    let name = match path.file_name() {
        Some(name) => Some(name),
        None => whole.as_deref().and_then(Path::file_name),
    };
    name.and_then(|name| name.to_str()).map(ToOwned::to_owned).ok_or_else(|| {
        Error::new(ErrorCode::InvalidPath, format!("{} has no usable name", path.display()))
            .hint("write PATH/. for what is in a directory")
    })
}

async fn upload(
    context: &Context,
    workspace: &WorkspaceRef,
    directory: &str,
    body: Body,
) -> Result<()> {
    let rest = format!("/archive{}", query(&[("path", directory)]));
    let path = workspace_path(workspace, &rest);
    match context.client.request(Method::PUT, &path, Some(TAR), body).await {
        Ok(_) => Ok(()),
        Err(error) => Err(missing(context, workspace, directory, error).await),
    }
}

async fn download(context: &Context, workspace: &WorkspaceRef, from: &str) -> Result<Incoming> {
    let rest = format!("/archive{}", query(&[("path", from)]));
    let path = workspace_path(workspace, &rest);
    let response = context.client.request(Method::GET, &path, None, Body::Whole(None)).await?;
    Ok(response.into_body())
}

async fn chunk(body: &mut Incoming) -> Result<Option<Bytes>> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => return Err(lost(&error)),
        }
    }
}

async fn get(context: &Context, workspace: &WorkspaceRef, from: &str, to: &str) -> Result<()> {
    let destination = PathBuf::from(to);
    let contents = from.ends_with("/.") || from == "/";
    let (directory, top) = if destination.is_dir() {
        if contents {
            (destination, None)
        } else {
            let name = from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            if name.is_empty() || name == ".." {
                return Err(Error::new(
                    ErrorCode::InvalidPath,
                    format!("{from:?} has no name of its own"),
                )
                .hint("name what it shall become: DIR/NAME"));
            }
            (destination, Some(name.to_owned()))
        }
    } else if to.ends_with('/') {
        return Err(no_directory(Path::new(to.trim_end_matches('/'))));
    } else {
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        (parent, Some(base_name(&destination)?))
    };
    // Under a name of its own even contents have a directory around them.
    let from = if top.is_some() { from.strip_suffix("/.").unwrap_or(from) } else { from };
    let named = top.is_some();
    let mut tree = Tree::open(&directory)?;
    // What is not whole yet must not stay: an interrupted copy tidies up before it ends.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut body = download(context, workspace, from).await?;
    let (chunks, reader) = reader();
    let (tell, mut done) = mpsc::channel::<u64>(16);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut reader = reader;
        let result = unpack(&mut reader, &mut tree, top.as_deref(), |bytes| {
            let _full = tell.try_send(bytes);
        });
        // The end of a tar stream comes before the end of its body.
        if result.is_ok() {
            let _rest = io::copy(&mut reader, &mut io::sink());
        }
        result
    });
    let mut progress = Progress::new(&context.output);
    let mut feeding = Box::pin(async move {
        while let Some(chunk) = chunk(&mut body).await? {
            if chunks.send(chunk).await.is_err() {
                break;
            }
        }
        Ok::<(), Error>(())
    });
    let fed = loop {
        tokio::select! {
            fed = &mut feeding => break fed,
            Some(bytes) = done.recv() => progress.bytes(from, bytes, None),
            _ = interrupt.recv() => break Err(interrupted(from)),
            _ = terminate.recv() => break Err(interrupted(from)),
        }
    };
    // The thread reads to the end of what it was fed.
    drop(feeding);
    progress.clear();
    let Unpacked { entries, skipped, .. } = match unpacking.await.map_err(Error::internal)? {
        // A stream that broke off is the reason, not the archive that ended with it.
        Err(error) => return fed.and(Err(error)),
        Ok(unpacked) => unpacked,
    };
    fed?;
    if named && entries == 0 {
        return Err(Error::new(
            ErrorCode::Unprocessable,
            format!("nothing came: {from} is no file, directory or link any more"),
        ));
    }
    left_out(context, skipped);
    Ok(())
}

fn interrupted(from: &str) -> Error {
    Error::new(ErrorCode::Cancelled, format!("the copy of {from} was interrupted"))
}

/// Chunks of a body as something to read from in a thread.
fn reader() -> (mpsc::Sender<Bytes>, ChunkReader) {
    let (sender, receiver) = mpsc::channel(4);
    (sender, ChunkReader { receiver, current: Bytes::new() })
}

struct ChunkReader {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
