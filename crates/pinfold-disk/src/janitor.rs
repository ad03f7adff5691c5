//! The one background thread of a pool: it empties the trash, makes empty disks of removed ones,
//! and prepares warm disks, so that none of that is waited for.

use std::{
    sync::{
        Arc, Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    time::Duration,
};

use crate::pool::{Emptied, Inner};

/// Most jobs that wait. A job that finds no room is done by whoever asked for it.
const MAX_WAITING: usize = 4096;
/// After this long without a job, what was put off is done.
const QUIET: Duration = Duration::from_millis(100);
/// Most removals that are put off until then. Each costs btrfs a commit in the background, which
/// is better spent while nobody waits for another.
const MAX_PUT_OFF: usize = 64;

/// As many emptied disks go to the shelf together, even while more are to be emptied.
const MANY: usize = 8;

#[derive(Debug)]
pub(crate) enum Job {
    /// Remove a disk from the trash.
    Empty {
        name: String,
        /// Nothing else can hold anything of it: it may become an empty disk.
        recycle: bool,
    },
    /// Make warm disks until there are as many as wanted.
    Warm,
}

#[derive(Debug)]
pub(crate) struct Janitor {
    jobs: Option<SyncSender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Janitor {
    pub(crate) fn start(pool: &Arc<Inner>) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let pool = Arc::downgrade(pool);
        let thread = std::thread::Builder::new()
            .name("pinfold-disks".into())
            .spawn(move || work(&pool, &waiting))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands over a job; gives it back when there is no room.
    pub(crate) fn give(&self, job: Job) -> Result<(), Job> {
        let Some(jobs) = &self.jobs else { return Err(job) };
        match jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Err(job),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It finishes what it was given; a panic there has been reported by the hook.
            let _ = thread.join();
        }
    }
}

fn work(pool: &Weak<Inner>, waiting: &Receiver<Job>) {
    let mut put_off = PutOff::default();
    loop {
        let job = match waiting.try_recv() {
            Err(TryRecvError::Empty) => {
                // Not before: one commit serves all that wait.
                if let Some(pool) = pool.upgrade() {
                    put_off.shelve(&pool, false);
                }
                if put_off.is_empty() {
                    waiting.recv().map_err(|_| RecvTimeoutError::Disconnected)
                } else {
                    waiting.recv_timeout(QUIET)
                }
            }
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            Ok(job) => Ok(job),
        };
        let Some(pool) = pool.upgrade() else { return };
        match job {
            Ok(Job::Warm) => {
                if let Err(error) = pool.refill() {
                    tracing::warn!(%error, "no empty disks are made in advance");
                }
            }
            Ok(Job::Empty { name, recycle }) => put_off.take(&pool, name, recycle),
            Err(RecvTimeoutError::Timeout) => {
                put_off.shelve(&pool, true);
                put_off.remove(&pool);
            }
            Err(RecvTimeoutError::Disconnected) => return put_off.end(&pool),
        }
    }
}

/// What lies in the trash and is not done with.
#[derive(Debug, Default)]
struct PutOff {
    /// To be removed.
    removals: Vec<String>,
    /// Empty, and to be put on the shelf when that is on the disk.
    emptied: Vec<Emptied>,
}

impl PutOff {
    fn is_empty(&self) -> bool {
        self.removals.is_empty() && self.emptied.is_empty()
    }

    fn take(&mut self, pool: &Inner, name: String, recycle: bool) {
        let emptied = if recycle { pool.recycle(&name) } else { None };
        if let Some(emptied) = emptied {
            self.emptied.push(emptied);
            pool.set_coming(self.emptied.len());
            if self.emptied.len() >= MANY {
                self.shelve(pool, false);
            }
            return;
        }
        self.removals.push(name);
        if self.removals.len() >= MAX_PUT_OFF || !pool.may_put_off_removals() {
            self.remove(pool);
        }
    }

    /// Puts on the shelf what can be put there. `now`: sees to it that all can.
    fn shelve(&mut self, pool: &Inner, now: bool) {
        if self.emptied.is_empty() {
            return;
        }
        self.removals.extend(pool.shelve(&mut self.emptied, now));
        pool.set_coming(self.emptied.len());
    }

    fn remove(&mut self, pool: &Inner) {
        for name in self.removals.drain(..) {
            if let Err(error) = pool.empty(&name) {
                tracing::warn!(%error, name, "not removed; the next start does it again");
            }
        }
    }

    fn end(&mut self, pool: &Inner) {
        self.shelve(pool, true);
        self.removals.extend(self.emptied.drain(..).map(|emptied| emptied.name));
        self.remove(pool);
    }
}
