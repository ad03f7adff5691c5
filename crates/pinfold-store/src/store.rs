//! The door of the room.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use pinfold_types::{Error, Result, SnapshotId, WorkspaceId, WorkspaceName};
use sqlx::SqlitePool;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};

use crate::{
    Change, Event, EventRow, SnapshotRow, StoreError, StoreStats, WorkspaceRow, connect, read,
    stats::CommitTimes,
    writer::{self, Checkpoints, Job, MAX_QUEUE},
};

/// Most events that one call of [`Store::events`] returns.
pub const MAX_EVENTS_PAGE: u32 = 1000;

/// The state of one home. Cheap to clone; the last clone's end closes it.
///
/// Writes return when they are on the disk. Dropping a write's future does not undo it. Reads see
/// every write that was acknowledged before them.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    queue: mpsc::Sender<Job>,
    readers: SqlitePool,
    path: PathBuf,
    created: bool,
    commits: Arc<CommitTimes>,
    events: watch::Receiver<u64>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database, or makes it when nothing is there, and brings its schema up to date.
    ///
    /// The directory must be 0700 and the files 0600, all the caller's own. Whoever opens holds
    /// the home's lock: two writers would wait for each other.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let opened = connect::open(path).await?;
        let (queue, jobs) = mpsc::channel(MAX_QUEUE);
        let checkpoints = Arc::new(Checkpoints::default());
        let checkpointer =
            tokio::spawn(writer::run_checkpoints(opened.checkpointer, Arc::clone(&checkpoints)));
        let commits = Arc::new(CommitTimes::default());
        let measured = Arc::clone(&commits);
        let (told, events) = watch::channel(0);
        tokio::spawn(writer::run(opened.writer, jobs, checkpoints, checkpointer, measured, told));
        Ok(Self {
            inner: Arc::new(Inner {
                queue,
                readers: opened.readers,
                path: path.to_owned(),
                created: opened.created,
                commits,
                events,
            }),
        })
    }

    /// Whether [`Store::open`] made the database: there was none.
    ///
    /// A home with disks and a new database has lost its state; reclaiming what no row names
    /// would then remove everything.
    pub fn created(&self) -> bool {
        self.inner.created
    }

    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What it has done since it was opened.
    pub fn stats(&self) -> StoreStats {
        let limit = self.inner.queue.max_capacity();
        self.inner.commits.stats(limit - self.inner.queue.capacity(), limit)
    }

    /// Writes what waits, moves the log into the main file, and closes. Later calls fail.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        // Readers first: the last connection to close tidies the log away.
        self.inner.readers.close().await;
        let job = Job { changes: Vec::new(), reply: Some(reply), close: true };
        if self.inner.queue.send(job).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Makes all changes, or none, and returns when they are on the disk.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        let (reply, done) = oneshot::channel();
        let job = Job { changes, reply: Some(reply), close: false };
        self.inner.queue.send(job).await.map_err(|_| StoreError::Closed)?;
        done.await.map_err(|_| Error::from(StoreError::Closed))?
    }

    /// Queues changes in order with all others, at once, so that what is done under a lock is
    /// written in the order in which it was done. The future is done when they are on the disk;
    /// dropped, it takes nothing back.
    ///
    /// # Errors
    /// When too many wait already, which makes none of them.
    pub fn submit(
        &self,
        changes: Vec<Change>,
    ) -> Result<impl Future<Output = Result<()>> + Send + use<>> {
        let (reply, done) = oneshot::channel();
        let job = Job { changes, reply: Some(reply), close: false };
        self.inner.queue.try_send(job).map_err(|err| match err {
            TrySendError::Full(_) => StoreError::Full { jobs: MAX_QUEUE },
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        Ok(async move { done.await.map_err(|_| Error::from(StoreError::Closed))? })
    }

    /// Queues changes in order with all others, and returns before they are on the disk: they
    /// ride with the next commit, at most some 50 ms later, and a crash in between forgets them.
    /// For what recovery can find out again.
    ///
    /// Reads do not see them until then. A failure, a full queue included, is logged.
    pub fn apply_relaxed(&self, changes: Vec<Change>) {
        let job = Job { changes, reply: None, close: false };
        if let Err(err) = self.inner.queue.try_send(job) {
            tracing::error!(%err, "a state change that nobody waits for was lost");
        }
    }

    /// Returns when everything queued before is on the disk.
    pub async fn flush(&self) -> Result<()> {
        self.apply(Vec::new()).await
    }

    /// Adds a workspace; `already_exists` when its name is taken.
    pub async fn insert_workspace(&self, row: &WorkspaceRow) -> Result<()> {
        self.apply(vec![Change::InsertWorkspace(Box::new(row.clone()))]).await
    }

    /// Replaces a workspace's columns; `not_found` when it is not there, `already_exists` when
    /// its new name is taken.
    pub async fn update_workspace(&self, row: &WorkspaceRow) -> Result<()> {
        self.apply(vec![Change::UpdateWorkspace(Box::new(row.clone()))]).await
    }

    /// The same without waiting: see [`Store::apply_relaxed`].
    pub fn update_workspace_relaxed(&self, row: &WorkspaceRow) {
        self.apply_relaxed(vec![Change::UpdateWorkspace(Box::new(row.clone()))]);
    }

    /// Notes activity without waiting: see [`Store::apply_relaxed`].
    pub fn touch_workspace(&self, id: WorkspaceId, at: Timestamp) {
        self.apply_relaxed(vec![Change::TouchWorkspace { id, at }]);
    }

    /// Removes a workspace; fine when it is gone.
    pub async fn delete_workspace(&self, id: WorkspaceId) -> Result<()> {
        self.apply(vec![Change::DeleteWorkspace(id)]).await
    }

    /// One workspace by id.
    pub async fn workspace(&self, id: WorkspaceId) -> Result<Option<WorkspaceRow>> {
        let by = "SELECT * FROM workspaces WHERE id = $1";
        Ok(read::workspace_by(&self.inner.readers, by, id.to_string()).await?)
    }

    /// The workspace that has this name now.
    pub async fn workspace_named(&self, name: &WorkspaceName) -> Result<Option<WorkspaceRow>> {
        let by = "SELECT * FROM workspaces WHERE name = $1 \
            AND state NOT IN ('destroying', 'destroyed')";
        Ok(read::workspace_by(&self.inner.readers, by, name.to_string()).await?)
    }

    /// All workspaces, oldest first.
    pub async fn workspaces(&self) -> Result<Vec<WorkspaceRow>> {
        Ok(read::workspaces(&self.inner.readers).await?)
    }

    /// Adds a snapshot; `already_exists` when its workspace has one of that name.
    pub async fn insert_snapshot(&self, row: &SnapshotRow) -> Result<()> {
        self.apply(vec![Change::InsertSnapshot(Box::new(row.clone()))]).await
    }

    /// Replaces a snapshot's columns; `not_found` when it is not there.
    pub async fn update_snapshot(&self, row: &SnapshotRow) -> Result<()> {
        self.apply(vec![Change::UpdateSnapshot(Box::new(row.clone()))]).await
    }

    /// Removes a snapshot; fine when it is gone.
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Result<()> {
        self.apply(vec![Change::DeleteSnapshot(id)]).await
    }

    /// One snapshot by id.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<Option<SnapshotRow>> {
        Ok(read::snapshot_by_id(&self.inner.readers, id.to_string()).await?)
    }

    /// All snapshots, or those of one workspace, oldest first.
    pub async fn snapshots(&self, of: Option<WorkspaceId>) -> Result<Vec<SnapshotRow>> {
        Ok(read::snapshots(&self.inner.readers, of.map(|id| id.to_string())).await?)
    }

    /// Records what happened, and returns when that is on the disk.
    pub async fn append_event(&self, event: Event) -> Result<()> {
        self.apply(vec![Change::AppendEvent(Box::new(event))]).await
    }

    /// Records what happened with the next commit: see [`Store::apply_relaxed`].
    pub fn append_event_relaxed(&self, event: Event) {
        self.apply_relaxed(vec![Change::AppendEvent(Box::new(event))]);
    }

    /// Events after a position, oldest first, of one object or of all; at most
    /// [`MAX_EVENTS_PAGE`].
    pub async fn events(
        &self,
        object: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<EventRow>> {
        let limit = limit.min(MAX_EVENTS_PAGE);
        Ok(read::events(&self.inner.readers, object.map(str::to_owned), after, limit).await?)
    }

    /// Position of the newest event; 0 before the first.
    pub async fn last_event(&self) -> Result<i64> {
        Ok(read::last_event(&self.inner.readers).await?)
    }

    /// Changes whenever events have come to be read; fails when the store is closed.
    pub fn events_written(&self) -> watch::Receiver<u64> {
        self.inner.events.clone()
    }

    /// Every record of a kind, by id.
    pub async fn records(&self, kind: &'static str) -> Result<Vec<(String, String)>> {
        Ok(read::records(&self.inner.readers, kind).await?)
    }

    /// A small fact about the home.
    pub async fn meta(&self, key: &str) -> Result<Option<String>> {
        Ok(read::meta(&self.inner.readers, key).await?)
    }

    /// Sets a small fact about the home.
    pub async fn set_meta(&self, key: &'static str, value: impl Into<String>) -> Result<()> {
        self.apply(vec![Change::SetMeta { key, value: value.into() }]).await
    }
}
