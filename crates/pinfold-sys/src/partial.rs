//! An entry of a directory has a name of its own until it is whole: what it replaces is gone only
//! then. Man pages: openat(2), rename(2).

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, FileType, renameat, unlinkat},
    io::Errno,
};

/// Names tried before giving up: each is taken only by accident or by somebody who guesses.
const TRIES: usize = 64;

/// A name beside the final one. Whatever has it is removed in the end, unless it was moved.
#[derive(Debug)]
pub struct Partial<P: AsFd> {
    parent: P,
    name: String,
}

impl<P: AsFd> Partial<P> {
    /// Has `make` make something under a name of `parent` that is free: it must fail with `EEXIST`
    /// where the name is taken, and never follow a link.
    ///
    /// # Errors
    /// What `make` says; `EEXIST` when none of 64 names was free.
    pub fn make<T>(
        parent: P,
        make: impl Fn(BorrowedFd<'_>, &str) -> Result<T, Errno>,
    ) -> Result<(Self, T), Errno> {
        for _ in 0..TRIES {
            let name = free_name();
            match make(parent.as_fd(), &name) {
                Ok(thing) => return Ok((Self { parent, name }, thing)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// The name until then.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it the final name, in place of what has that one: at once (rename(2)), or not at all.
    ///
    /// # Errors
    /// What `rename` says; the final name is as it was then.
    pub fn finish(self, name: &[u8]) -> Result<(), Errno> {
        renameat(&self.parent, self.name.as_str(), &self.parent, name)
    }
}

impl<P: AsFd> Drop for Partial<P> {
    fn drop(&mut self) {
        // After a move there is mostly nothing, but a link to the very file that it should have
        // replaced stays (rename(2)).
        let _ = unlinkat(&self.parent, self.name.as_str(), AtFlags::empty());
    }
}

/// What stands in the way of an entry, in words.
pub fn described(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        FileType::Symlink => "a link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    }
}

/// Another one each time, also after a restart.
fn free_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!(".pinfold-{now:x}-{number}.part")
}
