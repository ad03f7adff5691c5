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

use sqlx::{Connection, Row, SqliteConnection};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{Change, StoreError};

/// Jobs that may wait; more wait for room, or are refused when nobody waits for them.
pub(crate) const MAX_QUEUE: usize = 4096;
/// Most jobs of one transaction.
const MAX_GROUP: usize = 256;
/// Longest time that a relaxed job waits for company.
const RELAXED_DELAY: Duration = Duration::from_millis(20);
/// Changes after which a checkpoint is asked for. One change writes about four pages.
const CHECKPOINT_EVERY: usize = 256;
/// Frames in the log (of 4 KiB and a header) from which the writer helps the checkpoint along.
const LONG_LOG_FRAMES: i64 = 4096;
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
    log_is_long: AtomicBool,
}

/// Runs until the queue is closed or a job says so; then closes the connection, which moves the
/// log into the main file.
pub(crate) async fn run(
    mut conn: SqliteConnection,
    mut queue: mpsc::Receiver<Job>,
    checkpoints: Arc<Checkpoints>,
    checkpointer: tokio::task::JoinHandle<()>,
) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    let mut since_checkpoint = 0;
    let mut since_trim = 0;
    let mut closers = Vec::new();
    while closers.is_empty() && queue.recv_many(&mut group, MAX_GROUP).await > 0 {
        wait_for_company(&mut group, &mut queue).await;
        for job in group.iter_mut().filter(|job| job.close) {
            closers.extend(job.reply.take());
        }
        since_checkpoint += group.iter().map(|job| job.changes.len()).sum::<usize>();
        since_trim += events_in(&group);
        commit(&mut conn, &mut group).await;
        if since_trim >= TRIM_EVERY {
            since_trim = 0;
            trim_events(&mut conn).await;
        }
        if since_checkpoint >= CHECKPOINT_EVERY {
            since_checkpoint = 0;
            checkpoints.wanted.notify_one();
        }
        if checkpoints.log_is_long.swap(false, Ordering::Relaxed) {
            // What is left after the background pass is little; without a moment in which all of
            // the log is moved, steady traffic would let it grow for ever.
            checkpoint(&mut conn).await;
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
        if checkpoint(&mut conn)
            .await
            .is_some_and(|(log, moved)| log >= LONG_LOG_FRAMES && moved < log)
        {
            checkpoints.log_is_long.store(true, Ordering::Relaxed);
        }
    }
}

/// Frames in the log, and how many of them are in the main file now.
async fn checkpoint(conn: &mut SqliteConnection) -> Option<(i64, i64)> {
    let row = match sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(conn).await {
        Ok(row) => row,
        Err(err) => {
            tracing::warn!(error = %err, "a checkpoint of the state database failed");
            return None;
        }
    };
    Some((row.try_get(1).ok()?, row.try_get(2).ok()?))
}

async fn wait_for_company(group: &mut Vec<Job>, queue: &mut mpsc::Receiver<Job>) {
    let deadline = Instant::now() + RELAXED_DELAY;
    while group.len() < MAX_GROUP && group.iter().all(|job| job.reply.is_none()) {
        let room = MAX_GROUP - group.len();
        match timeout_at(deadline, queue.recv_many(group, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn events_in(group: &[Job]) -> usize {
    let changes = group.iter().flat_map(|job| &job.changes);
    changes.filter(|change| matches!(change, Change::AppendEvent(_))).count()
}

fn answer(job: Job, result: pinfold_types::Result<()>) {
    match job.reply {
        // A caller that went away does not undo what it asked for.
        Some(reply) => drop(reply.send(result)),
        None => {
            if let Err(err) = result {
                tracing::error!(error = %err, context = err.internal, "a state change was lost");
            }
        }
    }
}

/// Commits the group and answers its jobs. Jobs that break a rule fail alone; when the
/// transaction itself fails, all of them fail and nothing of the group is there.
async fn commit(conn: &mut SqliteConnection, group: &mut Vec<Job>) {
    // One statement is its own transaction: begin and commit would only add hops to the
    // connection's thread and back.
    if let [job] = group.as_slice()
        && let [change] = job.changes.as_slice()
    {
        let result = change.run(conn).await;
        let job = group.pop().expect("the group has one job");
        return answer(job, result.map_err(Into::into));
    }
    if group.iter().all(|job| job.changes.is_empty()) {
        return group.drain(..).for_each(|job| answer(job, Ok(())));
    }
    let mut results = Vec::with_capacity(group.len());
    let outcome = transaction(conn, group, &mut results).await;
    match outcome {
        Ok(()) => {
            for (job, result) in group.drain(..).zip(results) {
                answer(job, result.map_err(Into::into));
            }
        }
        Err(err) => {
            // SQLite may have rolled back by itself, in which case this is an error to ignore.
            let _ = sqlx::raw_sql("ROLLBACK").execute(conn).await;
            let err = pinfold_types::Error::from(err);
            for job in group.drain(..) {
                answer(job, Err(err.clone()));
            }
        }
    }
}

fn sql(step: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Sql { step, source }
}

async fn statement(
    conn: &mut SqliteConnection,
    text: &'static str,
    step: &'static str,
) -> Result<(), StoreError> {
    sqlx::query(text).execute(conn).await.map(|_| ()).map_err(sql(step))
}

async fn transaction(
    conn: &mut SqliteConnection,
    group: &[Job],
    results: &mut Vec<Result<(), StoreError>>,
) -> Result<(), StoreError> {
    statement(conn, "BEGIN IMMEDIATE", "begin").await?;
    for job in group {
        let result = match job.changes.as_slice() {
            [] => Ok(()),
            // A statement that fails undoes itself.
            [change] => change.run(conn).await,
            changes => together(conn, changes).await?,
        };
        match result {
            Err(err @ StoreError::Sql { .. }) => return Err(err),
            result => results.push(result),
        }
    }
    statement(conn, "COMMIT", "commit").await
}

/// The inner result is that of the job, the outer one that of the whole transaction.
async fn together(
    conn: &mut SqliteConnection,
    changes: &[Change],
) -> Result<Result<(), StoreError>, StoreError> {
    statement(conn, "SAVEPOINT job", "begin a step").await?;
    for change in changes {
        match change.run(conn).await {
            Ok(()) => {}
            Err(err @ StoreError::Sql { .. }) => return Err(err),
            Err(err) => {
                statement(conn, "ROLLBACK TO job", "undo a step").await?;
                statement(conn, "RELEASE job", "end a step").await?;
                return Ok(Err(err));
            }
        }
    }
    statement(conn, "RELEASE job", "end a step").await?;
    Ok(Ok(()))
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
