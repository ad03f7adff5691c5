//! Group commit: one task owns the writing connection.
//!
//! It takes what waits in its queue, commits all of it with one `fdatasync`, then answers all.
//! While a commit is under way the queue fills, so the group grows exactly as far as the disk is
//! slow, and nobody waits for a timer. Only jobs that nobody waits for are held back, for at most
//! [`RELAXED_DELAY`], to ride with one that somebody does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, SqliteConnection};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

mod group;

use self::group::{answer, commit, commit_events};
use crate::{Change, StoreError, stats::CommitTimes};

/// Jobs that may wait; more wait for room, or are refused when nobody waits for them.
pub(crate) const MAX_QUEUE: usize = 4096;
/// Most jobs of one transaction.
const MAX_GROUP: usize = 256;
/// Longest time that a relaxed job waits for company.
const RELAXED_DELAY: Duration = Duration::from_millis(50);
/// Changes after which a checkpoint is asked for. One change writes three or four frames of
/// 4 KiB, so the log is begun anew before it is longer than [`crate::file::LOG_BYTES`], and a
/// commit overwrites what is there: `fdatasync` then takes half as long as for a file that grows.
const CHECKPOINT_EVERY: usize = 160;
/// Events kept; older ones are dropped. The audit log proper is another room's.
const MAX_EVENTS: i64 = 100_000;
/// Appended events after which old ones are looked for.
const TRIM_EVERY: usize = 4096;

/// Some changes that happen together.
pub(crate) struct Job {
    pub(crate) changes: Vec<Change>,
    /// Who waits for it; `None` when nobody does.
    pub(crate) reply: Option<oneshot::Sender<pinfold_types::Result<()>>>,
    /// End after this group.
    pub(crate) close: bool,
}

/// What writer and checkpointer share.
#[derive(Default)]
pub(crate) struct Checkpoints {
    wanted: Notify,
    closing: AtomicBool,
    /// The background pass has moved all but the frames written meanwhile.
    nearly_done: AtomicBool,
}

/// Runs until the queue is closed or a job says so; then closes the connection, which moves the
/// log into the main file.
pub(crate) async fn run(
    mut conn: SqliteConnection,
    mut queue: mpsc::Receiver<Job>,
    checkpoints: Arc<Checkpoints>,
    checkpointer: tokio::task::JoinHandle<()>,
    times: Arc<CommitTimes>,
    told: watch::Sender<u64>,
) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    let mut held = Held::default();
    let mut counts = Counts::default();
    let mut closers = Vec::new();
    while closers.is_empty() {
        let received = match held.deadline {
            None => Ok(queue.recv_many(&mut group, MAX_GROUP).await),
            Some(deadline) => timeout_at(deadline, queue.recv_many(&mut group, MAX_GROUP)).await,
        };
        for job in group.iter_mut().filter(|job| job.close) {
            closers.extend(job.reply.take());
        }
        let closed = received == Ok(0);
        // Nothing is held back for a timer that has rung, for a close, or for a flush.
        let all = received.is_err()
            || group.iter().any(|job| job.changes.is_empty())
            || held.jobs() >= MAX_GROUP
            || closed;
        held.sort(&mut group, all);
        if all && !held.events.is_empty() {
            counts.note(&held.events);
            commit_events(&mut conn, &mut held.events).await;
        }
        if !group.is_empty() {
            counts.note(&group);
            let begun = Instant::now();
            commit(&mut conn, &mut group).await;
            times.note(begun.elapsed());
        }
        if std::mem::take(&mut counts.events) > 0 {
            told.send_modify(|times| *times += 1);
        }
        if counts.since_trim >= TRIM_EVERY {
            counts.since_trim = 0;
            trim_events(&mut conn).await;
        }
        if counts.since_checkpoint >= CHECKPOINT_EVERY {
            counts.since_checkpoint = 0;
            checkpoints.wanted.notify_one();
        }
        if checkpoints.nearly_done.swap(false, Ordering::Relaxed) {
            // The log begins anew only at a moment when all of it is moved. Under steady traffic
            // the background pass never meets one, so the writer moves the last few frames.
            checkpoint(&mut conn).await;
        }
        if closed {
            break;
        }
    }
    queue.close();
    while let Ok(job) = queue.try_recv() {
        answer(job, Err(StoreError::Closed.into()));
    }
    checkpoints.closing.store(true, Ordering::Relaxed);
    checkpoints.wanted.notify_one();
    // The last connection to close tidies the log away, and callers wait for this one.
    let _ = checkpointer.await;
    if let Err(err) = conn.close().await {
        tracing::warn!(error = %err, "the state database was not closed in order");
    }
    for closer in closers {
        let _ = closer.send(Ok(()));
    }
}

/// Moves pages from the log to the main file beside the writer, which it does not hold up.
pub(crate) async fn run_checkpoints(mut conn: SqliteConnection, checkpoints: Arc<Checkpoints>) {
    loop {
        checkpoints.wanted.notified().await;
        if checkpoints.closing.load(Ordering::Relaxed) {
            let _ = conn.close().await;
            return;
        }
        checkpoint(&mut conn).await;
        checkpoints.nearly_done.store(true, Ordering::Relaxed);
    }
}

/// Moves what no reader still needs, without waiting for anybody. What it cannot move now, the
/// next one will.
async fn checkpoint(conn: &mut SqliteConnection) {
    if let Err(err) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(conn).await {
        tracing::warn!(error = %err, "a checkpoint of the state database failed");
    }
}

/// Jobs that nobody waits for, until somebody's job or the timer takes them along.
#[derive(Default)]
struct Held {
    /// Changes of rows. They keep their place before later changes of rows.
    rows: Vec<Job>,
    /// Events, whose order among rows means nothing. They ride alone, many to a statement, so
    /// that nobody's own change waits for them.
    events: Vec<Job>,
    deadline: Option<Instant>,
}

impl Held {
    fn jobs(&self) -> usize {
        self.rows.len() + self.events.len()
    }

    /// Leaves in `group` what is to be committed now, in order; holds the rest.
    fn sort(&mut self, group: &mut Vec<Job>, all: bool) {
        let now = all || group.iter().any(|job| job.reply.is_some());
        for job in group.drain(..) {
            let event = |change: &Change| matches!(change, Change::AppendEvent(_));
            let lazy = job.reply.is_none() && job.changes.iter().all(event);
            if lazy && !job.changes.is_empty() {
                self.events.push(job);
            } else {
                self.rows.push(job);
            }
        }
        if now {
            group.append(&mut self.rows);
        }
        self.deadline = match self.deadline {
            _ if all || self.jobs() == 0 => None,
            None => Some(Instant::now() + RELAXED_DELAY),
            set => set,
        };
    }
}

/// What calls for tidying.
#[derive(Default)]
struct Counts {
    since_checkpoint: usize,
    since_trim: usize,
    /// Events committed since listeners were told.
    events: usize,
}

impl Counts {
    fn note(&mut self, jobs: &[Job]) {
        for change in jobs.iter().flat_map(|job| &job.changes) {
            self.since_checkpoint += 1;
            let event = usize::from(matches!(change, Change::AppendEvent(_)));
            self.since_trim += event;
            self.events += event;
        }
    }
}

async fn trim_events(conn: &mut SqliteConnection) {
    let trimmed = sqlx::query("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - $1")
        .bind(MAX_EVENTS)
        .execute(conn)
        .await;
    if let Err(err) = trimmed {
        tracing::warn!(error = %err, "old events could not be dropped");
    }
}
