//! Who goes first when memory runs out: a command and its children long before the guest, which
//! has only the output it holds for them, and before anything of the host.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
};

use pinfold_sys::spawn::FirstToGo;

/// What is added for a command, of 1000 that stand for all the memory there is (proc(5)).
const COMMAND: i16 = 500;
const HIGHEST: i16 = 1000;

/// The guest's own `oom_score_adj`.
#[derive(Debug)]
pub struct OomScore {
    file: File,
    own: i16,
}

impl OomScore {
    /// Takes over the file, open for reading and writing.
    ///
    /// # Errors
    /// When it is another file.
    pub fn read(file: File) -> io::Result<Self> {
        let mut text = [0; 16];
        let length = file.read_at(&mut text, 0)?;
        let own = std::str::from_utf8(text.get(..length).unwrap_or_default())
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { file, own })
    }

    /// What makes a command go before the guest.
    pub(super) fn first_to_go(&self) -> FirstToGo<'_> {
        let child = self.own.saturating_add(COMMAND).min(HIGHEST);
        FirstToGo { own: self.file.as_fd(), score: self.own, child }
    }
}
