//! Texts drawn at random that stand for something for a while: login links, tickets, consent
//! pages. They are kept in memory alone and found by their hash, so that the time of a search says
//! nothing of what was missed; a restart ends them all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pinfold_types::{Error, Result};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// What stands, by the hash of its text.
pub(super) type Standing<T> = HashMap<[u8; 32], Lasting<T>>;

/// What a text stands for.
#[derive(Debug)]
pub(super) struct Lasting<T> {
    pub(super) item: T,
    pub(super) ends: Instant,
}

/// Why a text stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// It never did, or was taken already.
    Unknown,
    /// Its time was over.
    Over,
}

/// Texts that stand.
#[derive(Debug)]
pub(super) struct Drawn<T> {
    life: Duration,
    standing: Mutex<Standing<T>>,
}

impl<T> Drawn<T> {
    pub(super) fn new(life: Duration) -> Self {
        Self { life, standing: Mutex::default() }
    }

    /// How long a text stands.
    pub(super) const fn life(&self) -> Duration {
        self.life
    }

    fn lock(&self) -> MutexGuard<'_, Standing<T>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws a text for `item` that begins with `prefix`. `room` is shown what stands, and refuses
    /// or makes room.
    ///
    /// # Errors
    /// What `room` says, or that the system gave no random bytes.
    pub(super) fn draw(
        &self,
        prefix: &str,
        item: T,
        room: impl FnOnce(&mut Standing<T>) -> Result<()>,
    ) -> Result<String> {
        let text = random_text::<32>(prefix)?;
        let now = Instant::now();
        let mut standing = self.lock();
        standing.retain(|_, lasting| lasting.ends > now);
        room(&mut standing)?;
        standing.insert(digest(&text), Lasting { item, ends: now + self.life });
        Ok(text)
    }

    /// Looks at what a text stands for, which stands as before.
    pub(super) fn look<R>(&self, text: &str, read: impl FnOnce(&T) -> R) -> Option<R> {
        let standing = self.lock();
        let found = standing.get(&digest(text)).filter(|lasting| lasting.ends > Instant::now());
        found.map(|lasting| read(&lasting.item))
    }

    /// Takes what a text stands for, for good.
    pub(super) fn take(&self, text: &str) -> Result<T, Missed> {
        let taken = self.lock().remove(&digest(text)).ok_or(Missed::Unknown)?;
        if taken.ends > Instant::now() { Ok(taken.item) } else { Err(Missed::Over) }
    }
}

/// `N` random bytes after a prefix, so that one in a log is known for what it is.
pub(super) fn random_text<const N: usize>(prefix: &str) -> Result<String> {
    let mut random = [0; N];
    getrandom::fill(&mut random)
        .map_err(|error| Error::internal(format!("no random bytes: {error}")))?;
    Ok(format!("{prefix}{}", data_encoding::BASE64URL_NOPAD.encode(&random)))
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
