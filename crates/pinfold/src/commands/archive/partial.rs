//! An entry has a name of its own until it is whole: what it replaces is gone only then.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, renameat, unlinkat},
    io::Errno,
};

/// Names tried before giving up: each is taken only by accident or by somebody who guesses.
const TRIES: usize = 64;

/// A name beside the final one. Whatever has it is removed in the end, unless it was moved.
#[derive(Debug)]
pub(super) struct Partial {
    parent: Arc<OwnedFd>,
    name: String,
}

impl Partial {
    /// Has `make` make something under a name that is free: it must fail with `EEXIST` where
    /// the name is taken, and never follow a link.
    pub(super) fn make<T>(
        parent: &Arc<OwnedFd>,
        make: impl Fn(&OwnedFd, &str) -> Result<T, Errno>,
    ) -> Result<(Self, T), Errno> {
        for _ in 0..TRIES {
            let name = free_name();
            match make(parent, &name) {
                Ok(thing) => return Ok((Self { parent: Arc::clone(parent), name }, thing)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// Gives it the final name, in place of what has that one: at once (rename(2)), or not at all.
    pub(super) fn finish(self, name: &[u8]) -> Result<(), Errno> {
        renameat(&self.parent, self.name.as_str(), &self.parent, name)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a move there is mostly nothing, but a link to the very file that it should have
        // replaced stays (rename(2)).
        let _gone = unlinkat(&self.parent, self.name.as_str(), AtFlags::empty());
    }
}

fn free_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!(".pinfold-{now:x}-{number}.part")
}
