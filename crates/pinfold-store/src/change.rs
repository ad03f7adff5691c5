//! One change of the state, and the statement that makes it.

use std::sync::LazyLock;

use jiff::Timestamp;
use pinfold_types::{SnapshotId, WorkspaceId, snapshot::SnapshotKind};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};

use crate::{Event, SnapshotRow, StoreError, WorkspaceRow, error::is_constraint};

/// One change. A list of them given to [`crate::Store::apply`] happens whole or not at all.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds a workspace. Its name must be free.
    InsertWorkspace(Box<WorkspaceRow>),
    /// Replaces all columns of a workspace except `created_at`; it must be there.
    UpdateWorkspace(Box<WorkspaceRow>),
    /// Notes that a workspace had work. Nothing happens when it is gone.
    TouchWorkspace {
        /// Which.
        id: WorkspaceId,
        /// When; an earlier time than the recorded one changes nothing.
        at: Timestamp,
    },
    /// Removes a workspace. Nothing happens when it is gone.
    DeleteWorkspace(WorkspaceId),
    /// Adds a snapshot. Its name must be free in its workspace.
    InsertSnapshot(Box<SnapshotRow>),
    /// Replaces all columns of a snapshot except `created_at`; it must be there.
    UpdateSnapshot(Box<SnapshotRow>),
    /// Removes a snapshot. Nothing happens when it is gone.
    DeleteSnapshot(SnapshotId),
    /// Records what happened.
    AppendEvent(Box<Event>),
    /// Adds or replaces a record of the control plane.
    PutRecord {
        /// What kind of record: `token`, `session` …
        kind: &'static str,
        /// Its id among its kind.
        id: String,
        /// The whole of it, JSON.
        body: String,
    },
    /// Removes a record. Nothing happens when it is gone.
    DeleteRecord {
        /// What kind of record.
        kind: &'static str,
        /// Its id among its kind.
        id: String,
    },
    /// Sets a small fact about the home.
    SetMeta {
        /// Its name.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

/// Statements are constants, so that each is prepared once.
const INSERT_WORKSPACE: &str = "INSERT INTO workspaces (id, name, state, reason, boot, image_id, \
    image_name, spec, lineage, pid, start_time, uid_slot, secret, started_at, expires_at, \
    last_active_at, base_snapshot, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
    $11, $12, $13, $14, $15, $16, $17, $18)";
const UPDATE_WORKSPACE: &str = "UPDATE workspaces SET name = $2, state = $3, reason = $4, \
    boot = $5, image_id = $6, image_name = $7, spec = $8, lineage = $9, pid = $10, \
    start_time = $11, uid_slot = $12, secret = $13, started_at = $14, expires_at = $15, \
    last_active_at = CASE WHEN last_active_at > $16 THEN last_active_at ELSE $16 END, \
    base_snapshot = $17 WHERE id = $1";
const TOUCH_WORKSPACE: &str =
    "UPDATE workspaces SET last_active_at = $2 WHERE id = $1 AND last_active_at < $2";
const DELETE_WORKSPACE: &str = "DELETE FROM workspaces WHERE id = $1";
const INSERT_SNAPSHOT: &str = "INSERT INTO snapshots (id, name, state, workspace, workspace_name, \
    boot, parent, kind, image_id, image_name, spec, lineage, referenced_bytes, exclusive_bytes, \
    method, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16)";
const UPDATE_SNAPSHOT: &str = "UPDATE snapshots SET name = $2, state = $3, workspace = $4, \
    workspace_name = $5, boot = $6, parent = $7, kind = $8, image_id = $9, image_name = $10, \
    spec = $11, lineage = $12, referenced_bytes = $13, exclusive_bytes = $14, method = $15 \
    WHERE id = $1";
const DELETE_SNAPSHOT: &str = "DELETE FROM snapshots WHERE id = $1";
const APPEND_EVENT: &str =
    "INSERT INTO events (at, kind, object, principal, detail) VALUES ($1, $2, $3, $4, $5)";
const PUT_RECORD: &str = "INSERT INTO records (kind, id, body) VALUES ($1, $2, $3) \
    ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body";
const DELETE_RECORD: &str = "DELETE FROM records WHERE kind = $1 AND id = $2";
const SET_META: &str = "INSERT INTO meta (key, value) VALUES ($1, $2) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";

impl Change {
    /// The statement's name in errors.
    const fn step(&self) -> &'static str {
        match self {
            Self::InsertWorkspace(_) => "add a workspace",
            Self::UpdateWorkspace(_) => "change a workspace",
            Self::TouchWorkspace { .. } => "note a workspace's activity",
            Self::DeleteWorkspace(_) => "remove a workspace",
            Self::InsertSnapshot(_) => "add a snapshot",
            Self::UpdateSnapshot(_) => "change a snapshot",
            Self::DeleteSnapshot(_) => "remove a snapshot",
            Self::AppendEvent(_) => "record an event",
            Self::PutRecord { .. } => "write a record",
            Self::DeleteRecord { .. } => "remove a record",
            Self::SetMeta { .. } => "set a fact",
        }
    }

    /// Runs the statement. A failed statement leaves nothing behind
    /// (<https://www.sqlite.org/lang_conflict.html>, ABORT).
    pub(crate) async fn run(&self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        let query = match self {
            Self::InsertWorkspace(row) => {
                bind_workspace(INSERT_WORKSPACE, row)?.bind(row.created_at.as_millisecond())
            }
            Self::UpdateWorkspace(row) => bind_workspace(UPDATE_WORKSPACE, row)?,
            Self::TouchWorkspace { id, at } => {
                sqlx::query(TOUCH_WORKSPACE).bind(id.to_string()).bind(at.as_millisecond())
            }
            Self::DeleteWorkspace(id) => sqlx::query(DELETE_WORKSPACE).bind(id.to_string()),
            Self::InsertSnapshot(row) => {
                bind_snapshot(INSERT_SNAPSHOT, row)?.bind(row.created_at.as_millisecond())
            }
            Self::UpdateSnapshot(row) => bind_snapshot(UPDATE_SNAPSHOT, row)?,
            Self::DeleteSnapshot(id) => sqlx::query(DELETE_SNAPSHOT).bind(id.to_string()),
            Self::AppendEvent(event) => bind_event(sqlx::query(APPEND_EVENT), event),
            Self::PutRecord { kind, id, body } => {
                sqlx::query(PUT_RECORD).bind(*kind).bind(id.clone()).bind(body.clone())
            }
            Self::DeleteRecord { kind, id } => {
                sqlx::query(DELETE_RECORD).bind(*kind).bind(id.clone())
            }
            Self::SetMeta { key, value } => sqlx::query(SET_META).bind(*key).bind(value.clone()),
        };
        let done = query.execute(conn).await.map_err(|err| self.explain(err))?;
        let missing = |kind, id: String| Err(StoreError::NoRow { kind, id });
        match self {
            Self::UpdateWorkspace(row) if done.rows_affected() == 0 => {
                missing("workspace", row.id.to_string())
            }
            Self::UpdateSnapshot(row) if done.rows_affected() == 0 => {
                missing("snapshot", row.id.to_string())
            }
            _ => Ok(()),
        }
    }

    fn explain(&self, source: sqlx::Error) -> StoreError {
        if !is_constraint(&source) {
            return StoreError::Sql { step: self.step(), source };
        }
        let text = source.to_string();
        match self {
            Self::InsertWorkspace(row) | Self::UpdateWorkspace(row)
                if text.contains("workspaces.name") =>
            {
                StoreError::WorkspaceNameTaken { name: row.name.to_string() }
            }
            Self::InsertSnapshot(row) | Self::UpdateSnapshot(row)
                if text.contains("snapshots.name") =>
            {
                StoreError::SnapshotNameTaken { name: row.name.to_string() }
            }
            Self::InsertWorkspace(row) | Self::UpdateWorkspace(row) => StoreError::Taken {
                what: format!("the id or uid range of workspace {}", row.id),
                source,
            },
            Self::InsertSnapshot(row) | Self::UpdateSnapshot(row) => {
                StoreError::Taken { what: format!("the id of snapshot {}", row.id), source }
            }
            _ => StoreError::Sql { step: self.step(), source },
        }
    }
}

/// Events of one statement of [`append_events`].
pub(crate) const EVENTS_AT_ONCE: usize = 16;

static APPEND_EVENTS: LazyLock<String> = LazyLock::new(|| {
    let rows: Vec<String> = (0..EVENTS_AT_ONCE)
        .map(|row| {
            let first = row * 5 + 1;
            let places: Vec<String> = (first..first + 5).map(|place| format!("${place}")).collect();
            format!("({})", places.join(", "))
        })
        .collect();
    format!("INSERT INTO events (at, kind, object, principal, detail) VALUES {}", rows.join(", "))
});

/// Appends one event, or exactly [`EVENTS_AT_ONCE`], by one statement.
pub(crate) async fn append_events(
    conn: &mut SqliteConnection,
    events: &[&Event],
) -> Result<(), StoreError> {
    let statement =
        if events.len() == EVENTS_AT_ONCE { APPEND_EVENTS.as_str() } else { APPEND_EVENT };
    // The text is made of numbers alone.
    let query = sqlx::query(AssertSqlSafe(statement));
    let query = events.iter().fold(query, |query, event| bind_event(query, event));
    let done = query.execute(conn).await;
    done.map(|_| ()).map_err(|source| StoreError::Sql { step: "record events", source })
}

fn bind_event<'q>(query: Bound<'q>, event: &Event) -> Bound<'q> {
    query
        .bind(event.at.as_millisecond())
        .bind(event.kind.clone())
        .bind(event.object.clone())
        .bind(event.principal.clone())
        .bind(event.detail.to_string())
}

type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

fn whole(field: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::BadValue { field })
}

fn json(field: &'static str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::BadValue { field })
}

fn bind_workspace<'q>(
    statement: &'static str,
    row: &WorkspaceRow,
) -> Result<Bound<'q>, StoreError> {
    Ok(sqlx::query(statement)
        .bind(row.id.to_string())
        .bind(row.name.to_string())
        .bind(row.state.as_str())
        .bind(row.reason.clone())
        .bind(whole("boot", row.boot)?)
        .bind(row.image_id.to_string())
        .bind(row.image_name.to_string())
        .bind(json("spec", &row.spec)?)
        .bind(json("lineage", &row.lineage)?)
        .bind(row.pid)
        .bind(row.start_time.map(|value| whole("start_time", value)).transpose()?)
        .bind(row.uid_slot.map(i64::from))
        .bind(row.secret.as_ref().map(|secret| secret.expose().to_vec()))
        .bind(row.started_at.map(Timestamp::as_millisecond))
        .bind(row.expires_at.map(Timestamp::as_millisecond))
        .bind(row.last_active_at.as_millisecond())
        .bind(row.base_snapshot.map(String::from)))
}

fn bind_snapshot<'q>(statement: &'static str, row: &SnapshotRow) -> Result<Bound<'q>, StoreError> {
    let SnapshotKind::Disk = row.kind;
    Ok(sqlx::query(statement)
        .bind(row.id.to_string())
        .bind(row.name.to_string())
        .bind(row.state.as_str())
        .bind(row.workspace.to_string())
        .bind(row.workspace_name.to_string())
        .bind(whole("boot", row.boot)?)
        .bind(row.parent.map(String::from))
        .bind("disk")
        .bind(row.image_id.to_string())
        .bind(row.image_name.to_string())
        .bind(json("spec", &row.spec)?)
        .bind(json("lineage", &row.lineage)?)
        .bind(row.referenced_bytes.map(|value| whole("referenced_bytes", value)).transpose()?)
        .bind(row.exclusive_bytes.map(|value| whole("exclusive_bytes", value)).transpose()?)
        .bind(row.method.clone()))
}
