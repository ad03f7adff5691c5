//! The one background thread of a pool: it empties the trash and prepares warm disks, so that
//! neither is waited for.

use std::sync::{
    Arc, Weak,
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

use crate::pool::Inner;

/// Most jobs that wait. A job that finds no room is done by whoever asked for it.
const MAX_WAITING: usize = 4096;

#[derive(Debug)]
pub(crate) enum Job {
    /// Remove this name from the trash.
    Empty(String),
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
    while let Ok(job) = waiting.recv() {
        let Some(pool) = pool.upgrade() else { return };
        let done = match &job {
            Job::Empty(name) => pool.empty(name),
            Job::Warm => pool.refill(),
        };
        if let Err(error) = done {
            tracing::warn!(%error, ?job, "a disk job failed; the next start does it again");
        }
    }
}
