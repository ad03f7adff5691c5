//! One group: a transaction, and the answers.

use sqlx::SqliteConnection;

use super::Job;
use crate::{
    Change, StoreError,
    change::{EVENTS_AT_ONCE, append_events},
};

/// Tells whoever waits, or the log.
pub(super) fn answer(job: Job, result: pinfold_types::Result<()>) {
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
pub(super) async fn commit(conn: &mut SqliteConnection, group: &mut Vec<Job>) {
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

/// Appends events that nobody waits for, many to a statement.
pub(super) async fn commit_events(conn: &mut SqliteConnection, jobs: &mut Vec<Job>) {
    let events: Vec<_> = jobs
        .iter()
        .flat_map(|job| &job.changes)
        .filter_map(|change| match change {
            Change::AppendEvent(event) => Some(&**event),
            _ => None,
        })
        .collect();
    if let Err(err) = events_together(conn, &events).await {
        let _ = sqlx::raw_sql("ROLLBACK").execute(conn).await;
        let count = events.len();
        tracing::error!(error = %err, count, "events were lost");
    }
    jobs.clear();
}

async fn events_together(
    conn: &mut SqliteConnection,
    events: &[&crate::Event],
) -> Result<(), StoreError> {
    if let [one] = events {
        return append_events(conn, &[one]).await;
    }
    statement(conn, "BEGIN IMMEDIATE", "begin").await?;
    let mut chunks = events.chunks_exact(EVENTS_AT_ONCE);
    for chunk in chunks.by_ref() {
        append_events(conn, chunk).await?;
    }
    for one in chunks.remainder() {
        append_events(conn, &[one]).await?;
    }
    statement(conn, "COMMIT", "commit").await
}
