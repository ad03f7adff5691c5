//! Where a backup is written: a file that gets its name when it is whole, or standard output.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::{Buf, Bytes};
use pinfold_backup::{Key, Opener, Sealer};
use pinfold_types::{Error, ErrorCode, Result};
use tokio::sync::mpsc::Receiver;

/// A backup that is being written. One that does not become whole leaves no file.
#[derive(Debug)]
pub(super) struct Target {
    /// The draft and the name it gets.
    file: Option<(PathBuf, PathBuf)>,
    out: Option<File>,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((draft, _)) = &self.file {
            let _gone = std::fs::remove_file(draft);
        }
    }
}

impl Target {
    /// A file that must not be there yet, 0600; `None` is standard output.
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, out: None }) };
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(
                ErrorCode::AlreadyExists,
                format!("{} is there already", path.display()),
            )
            .hint("choose another name: an older backup is not written over"));
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".partial-{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let out =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(
                |error| {
                    let place = draft.display();
                    Error::new(ErrorCode::InvalidPath, format!("{place} cannot be made: {error}"))
                },
            )?;
        Ok(Self { file: Some((draft, path.to_owned())), out: Some(out) })
    }

    /// Writes all pieces, sealed anew from the first key to the second where there are two, and
    /// gives the number of bytes written.
    pub(super) fn fill(
        mut self,
        pieces: Receiver<io::Result<Bytes>>,
        anew: Option<(Key, Key)>,
        count: &AtomicU64,
    ) -> io::Result<u64> {
        let mut from = Pieces { pieces, piece: Bytes::new() };
        let mut out = Counted { out: self.out.take(), count };
        match anew {
            None => {
                io::copy(&mut from, &mut out)?;
            }
            Some((old, new)) => {
                let wrong = |error: Error| io::Error::other(error.message);
                let mut opener = Opener::new(&mut from, &old).map_err(wrong)?;
                let mut sealer = Sealer::new(&mut out, &new).map_err(wrong)?;
                io::copy(&mut opener, &mut sealer)?;
                sealer.finish()?;
            }
        }
        if let Some(file) = out.out.take() {
            file.sync_all()?;
        }
        if let Some((draft, path)) = &self.file {
            // Nobody else's file is written over, should one have come meanwhile.
            std::fs::hard_link(draft, path)?;
        }
        Ok(count.load(Ordering::Relaxed))
    }
}

/// What the server sends, as a reader.
struct Pieces {
    pieces: Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let taken = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}

/// A file or standard output, counted.
struct Counted<'a> {
    out: Option<File>,
    count: &'a AtomicU64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.out {
            Some(file) => file.write(bytes)?,
            None => io::stdout().write(bytes)?,
        };
        self.count.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Some(file) => file.flush(),
            None => io::stdout().flush(),
        }
    }
}
