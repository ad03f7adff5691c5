//! File content, in pieces, both ways.

use std::{
    collections::VecDeque,
    fs,
    io::{self, IoSlice, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use pinfold_proto::{FileStart, Kind, WriteOptions};
use pinfold_sys::fill::pread_into;
use pinfold_types::{Error, ErrorCode, api::FileInfo, exec::check_path, name::excerpt};
use rustix::fs::OFlags;

use super::{blocking, info, make_parents, mode_bits};
use crate::{
    channel::{Gone, Incoming, Stream},
    failure::on_path,
};

/// Read at once; two frames.
const READ_BYTES: usize = 512 << 10;
/// Written at once.
const WRITE_BYTES: usize = 1 << 20;

/// `O_NONBLOCK` keeps a FIFO from holding the thread; regular files ignore it.
fn careful() -> i32 {
    i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0)
}

fn must_be_regular(path: &str, facts: &fs::Metadata) -> Result<(), Error> {
    if facts.is_file() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Unprocessable, format!("{:?} is not a regular file", excerpt(path))))
}

/// Buffers that were sent and come back once the socket has taken them.
#[derive(Default)]
struct Buffers(VecDeque<Bytes>);

impl Buffers {
    fn take(&mut self) -> BytesMut {
        let oldest = self.0.pop_front().map(Bytes::try_into_mut);
        match oldest {
            Some(Ok(mut buffer)) if buffer.capacity() >= READ_BYTES => {
                buffer.clear();
                buffer
            }
            _ => BytesMut::with_capacity(READ_BYTES),
        }
    }

    fn give(&mut self, sent: Bytes) {
        if self.0.len() < 4 {
            self.0.push_back(sent);
        }
    }
}

/// Sends a file's content.
pub(super) async fn read(stream: Stream, path: String, offset: u64, length: Option<u64>) {
    let opened = blocking({
        let path = path.clone();
        move || {
            check_path(&path)?;
            let failed = |error| on_path("read", &path, &error);
            let file = fs::OpenOptions::new()
                .read(true)
                .custom_flags(careful())
                .open(&path)
                .map_err(failed)?;
            let facts = file.metadata().map_err(failed)?;
            must_be_regular(&path, &facts)?;
            Ok((file, info(Path::new(&path), &facts)))
        }
    })
    .await;
    let (file, facts) = match opened {
        Ok(opened) => opened,
        Err(error) => return stream.fail(&error),
    };
    stream.message(&FileStart { info: Some(facts) });
    match send_content(&stream, Arc::new(file), &path, offset, length.unwrap_or(u64::MAX)).await {
        Ok(Ok(())) => stream.close(&()),
        Ok(Err(error)) => stream.fail(&error),
        Err(Gone) => {}
    }
}

async fn send_content(
    stream: &Stream,
    file: Arc<fs::File>,
    path: &str,
    mut offset: u64,
    mut left: u64,
) -> Result<Result<(), Error>, Gone> {
    let mut buffers = Buffers::default();
    let start = |offset: u64, left: u64, buffers: &mut Buffers| {
        let (file, mut buffer) = (Arc::clone(&file), buffers.take());
        let limit = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        tokio::task::spawn_blocking(move || {
            pread_into(&*file, &mut buffer, limit, offset).map(|_| buffer.freeze())
        })
    };
    let mut next = start(offset, left, &mut buffers);
    loop {
        let data = match next.await {
            Ok(Ok(data)) => data,
            Ok(Err(error)) => return Ok(Err(on_path("read", path, &error))),
            Err(error) => return Ok(Err(Error::internal(error))),
        };
        let now = data.len() as u64;
        offset = offset.saturating_add(now);
        left = left.saturating_sub(now);
        if now == 0 {
            return Ok(Ok(()));
        }
        // The next piece is read while this one is sent.
        next = start(offset, left, &mut buffers);
        stream.send(Kind::Data0, data.clone()).await?;
        buffers.give(data);
    }
}

/// A file being written.
struct Target {
    path: String,
    file: fs::File,
    offset: u64,
    mode: Option<fs::Permissions>,
    /// The name to take on when all is written.
    replace: Option<(PathBuf, Temporary)>,
}

/// Removes a half-written file.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Gone with its directory, perhaps.
            let _ = fs::remove_file(path);
        }
    }
}

impl Target {
    fn open(path: String, options: &WriteOptions) -> Result<Self, Error> {
        check_path(&path)?;
        let mode = options.mode.map(mode_bits).transpose()?;
        if options.create_parents {
            make_parents(&path)?;
        }
        let failed = |error| on_path("write", &path, &error);
        let Some(offset) = options.offset else {
            return Self::open_beside(path, mode);
        };
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(careful())
            .open(&path)
            .map_err(failed)?;
        must_be_regular(&path, &file.metadata().map_err(failed)?)?;
        if let Some(mode) = &mode {
            file.set_permissions(mode.clone()).map_err(failed)?;
        }
        Ok(Self { path, file, offset, mode, replace: None })
    }

    fn open_beside(path: String, mode: Option<fs::Permissions>) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let failed = |error| on_path("write", &path, &error);
        // Through a link to the file it means, so that the link stays one.
        let place = fs::canonicalize(&path).unwrap_or_else(|_| PathBuf::from(&path));
        let old = match fs::symlink_metadata(&place) {
            Ok(facts) if facts.is_symlink() => None,
            Ok(facts) => {
                must_be_regular(&path, &facts)?;
                Some(facts)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if path.ends_with('/') || place.file_name().is_none() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary =
            place.with_file_name(format!(".pinfold-{}-{number}.part", std::process::id()));
        // A name left by an earlier boot of this disk.
        let _ = fs::remove_file(&temporary);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed)?;
        let guard = Temporary(Some(temporary));
        if let Some(old) = &old {
            // Owners outside the workspace's range cannot be given again.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        let usual = old.map_or(0o644, |old| old.mode() & 0o7777);
        let mode = mode.unwrap_or_else(|| fs::Permissions::from_mode(usual));
        file.set_permissions(mode.clone()).map_err(failed)?;
        Ok(Self { path, file, offset: 0, mode: Some(mode), replace: Some((place, guard)) })
    }

    fn write(&mut self, pieces: &[Bytes]) -> Result<(), Error> {
        let failed = |error| on_path("write", &self.path, &error);
        if self.replace.is_some() {
            // At the file's own position, all pieces in one call.
            let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                match (&self.file).write_vectored(rest) {
                    Ok(0) => return Err(failed(io::Error::from(io::ErrorKind::WriteZero))),
                    Ok(written) => IoSlice::advance_slices(&mut rest, written),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            return Ok(());
        }
        for piece in pieces {
            self.file.write_all_at(piece, self.offset).map_err(failed)?;
            self.offset = self.offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<FileInfo, Error> {
        let failed = |error| on_path("write", &self.path, &error);
        // Writing takes setuid and setgid off, where the guest may not keep them.
        if let Some(mode) = self.mode.take().filter(|mode| mode.mode() & 0o6000 != 0) {
            self.file.set_permissions(mode).map_err(failed)?;
        }
        if let Some((place, mut guard)) = self.replace.take()
            && let Some(temporary) = &guard.0
        {
            fs::rename(temporary, place).map_err(failed)?;
            guard.0 = None;
        }
        let facts = self.file.metadata().map_err(failed)?;
        Ok(info(Path::new(&self.path), &facts))
    }
}

/// Takes a file's content.
pub(super) async fn write(stream: Stream, path: String, options: WriteOptions) {
    let mut target = match blocking(move || Target::open(path, &options)).await {
        Ok(target) => target,
        Err(error) => return stream.fail(&error),
    };
    loop {
        let first = match stream.receive().await {
            Ok(Incoming::Data(data)) => data,
            Ok(Incoming::End) => {
                return stream.answer(blocking(move || target.finish()).await).await;
            }
            // Given up: what was to be replaced stays. Unlinking may wait too.
            Err(Gone) => {
                let _ = blocking(move || {
                    drop(target);
                    Ok(())
                })
                .await;
                return;
            }
        };
        let (mut pieces, mut size) = (vec![first], 0);
        while size < WRITE_BYTES
            && let Some(more) = stream.receive_now()
        {
            size += more.len();
            pieces.push(more);
        }
        let lengths: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        // The next pieces come while these are written: what is held is these and one window.
        for length in lengths {
            stream.consumed(length);
        }
        let written = blocking(move || {
            target.write(&pieces)?;
            Ok(target)
        })
        .await;
        match written {
            Ok(back) => target = back,
            Err(error) => return stream.fail(&error),
        }
    }
}
