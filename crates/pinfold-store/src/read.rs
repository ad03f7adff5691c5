//! Reading rows back. A value that does not parse is damage, told by table row and column.

use std::str::FromStr;

use jiff::Timestamp;
use pinfold_types::{BootSecret, WorkspaceState, snapshot::SnapshotKind};
use serde::de::DeserializeOwned;
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use crate::{Event, EventRow, SnapshotRow, SnapshotState, StoreError, WorkspaceRow};

fn sql(step: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Sql { step, source }
}

/// One row with its id, for errors.
struct Reader<'r> {
    row: &'r SqliteRow,
    id: String,
}

impl<'r> Reader<'r> {
    fn new(row: &'r SqliteRow) -> Result<Self, StoreError> {
        Ok(Self { row, id: row.try_get("id").map_err(sql("read an id"))? })
    }

    fn bad(&self, column: &'static str, problem: impl std::fmt::Display) -> StoreError {
        StoreError::BadColumn { column, row: self.id.clone(), problem: problem.to_string() }
    }

    fn get<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: sqlx::Type<sqlx::Sqlite> + sqlx::Decode<'r, sqlx::Sqlite>,
    {
        self.row.try_get(column).map_err(|err| self.bad(column, err))
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(
        &self,
        column: &'static str,
    ) -> Result<T, StoreError> {
        self.get::<&str>(column)?.parse().map_err(|err| self.bad(column, err))
    }

    fn parse_opt<T: FromStr<Err: std::fmt::Display>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        self.get::<Option<&str>>(column)?
            .map(|text| text.parse().map_err(|err| self.bad(column, err)))
            .transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.get(column)?).map_err(|err| self.bad(column, err))
    }

    fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        let value: i64 = self.get(column)?;
        T::try_from(value).map_err(|_| self.bad(column, "out of range"))
    }

    fn number_opt<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.get::<Option<i64>>(column)?
            .map(|value| T::try_from(value).map_err(|_| self.bad(column, "out of range")))
            .transpose()
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        Timestamp::from_millisecond(self.get(column)?).map_err(|err| self.bad(column, err))
    }

    fn time_opt(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        self.get::<Option<i64>>(column)?
            .map(|ms| Timestamp::from_millisecond(ms).map_err(|err| self.bad(column, err)))
            .transpose()
    }
}

fn workspace(row: &SqliteRow) -> Result<WorkspaceRow, StoreError> {
    let from = Reader::new(row)?;
    let state: &str = from.get("state")?;
    let state = WorkspaceState::ALL
        .iter()
        .find(|known| known.as_str() == state)
        .copied()
        .ok_or_else(|| from.bad("state", "no such state"))?;
    let secret = from
        .get::<Option<&[u8]>>("secret")?
        .map(|bytes| bytes.try_into().map_err(|_| from.bad("secret", "wrong length")))
        .transpose()?
        .map(BootSecret::from_bytes);
    Ok(WorkspaceRow {
        id: from.parse("id")?,
        name: from.parse("name")?,
        state,
        reason: from.get("reason")?,
        boot: from.number("boot")?,
        image_id: from.parse("image_id")?,
        image_name: from.parse("image_name")?,
        spec: from.json("spec")?,
        lineage: from.json("lineage")?,
        pid: from.number_opt("pid")?,
        start_time: from.number_opt("start_time")?,
        uid_slot: from.number_opt("uid_slot")?,
        secret,
        created_at: from.time("created_at")?,
        started_at: from.time_opt("started_at")?,
        expires_at: from.time_opt("expires_at")?,
        last_active_at: from.time("last_active_at")?,
        base_snapshot: from.parse_opt("base_snapshot")?,
    })
}

fn snapshot(row: &SqliteRow) -> Result<SnapshotRow, StoreError> {
    let from = Reader::new(row)?;
    let state = match from.get("state")? {
        "creating" => SnapshotState::Creating,
        "ready" => SnapshotState::Ready,
        "removing" => SnapshotState::Removing,
        _ => return Err(from.bad("state", "no such state")),
    };
    let kind = match from.get("kind")? {
        "disk" => SnapshotKind::Disk,
        _ => return Err(from.bad("kind", "no such kind")),
    };
    Ok(SnapshotRow {
        id: from.parse("id")?,
        name: from.parse("name")?,
        state,
        workspace: from.parse("workspace")?,
        workspace_name: from.parse("workspace_name")?,
        boot: from.number("boot")?,
        parent: from.parse_opt("parent")?,
        kind,
        image_id: from.parse("image_id")?,
        image_name: from.parse("image_name")?,
        spec: from.json("spec")?,
        lineage: from.json("lineage")?,
        referenced_bytes: from.number_opt("referenced_bytes")?,
        exclusive_bytes: from.number_opt("exclusive_bytes")?,
        method: from.get("method")?,
        created_at: from.time("created_at")?,
    })
}

/// `by` is a complete statement with at most one parameter.
pub(crate) async fn workspace_by(
    pool: &SqlitePool,
    by: &'static str,
    key: String,
) -> Result<Option<WorkspaceRow>, StoreError> {
    let found = sqlx::query(by).bind(key).fetch_optional(pool).await;
    found.map_err(sql("read a workspace"))?.as_ref().map(workspace).transpose()
}

pub(crate) async fn workspaces(pool: &SqlitePool) -> Result<Vec<WorkspaceRow>, StoreError> {
    let all = sqlx::query("SELECT * FROM workspaces ORDER BY id").fetch_all(pool).await;
    all.map_err(sql("list workspaces"))?.iter().map(workspace).collect()
}

pub(crate) async fn snapshot_by_id(
    pool: &SqlitePool,
    id: String,
) -> Result<Option<SnapshotRow>, StoreError> {
    let found =
        sqlx::query("SELECT * FROM snapshots WHERE id = $1").bind(id).fetch_optional(pool).await;
    found.map_err(sql("read a snapshot"))?.as_ref().map(snapshot).transpose()
}

pub(crate) async fn snapshots(
    pool: &SqlitePool,
    of: Option<String>,
) -> Result<Vec<SnapshotRow>, StoreError> {
    let all = match of {
        Some(id) => {
            sqlx::query("SELECT * FROM snapshots WHERE workspace = $1 ORDER BY id")
                .bind(id)
                .fetch_all(pool)
                .await
        }
        None => sqlx::query("SELECT * FROM snapshots ORDER BY id").fetch_all(pool).await,
    };
    all.map_err(sql("list snapshots"))?.iter().map(snapshot).collect()
}

/// Position of the newest event.
pub(crate) async fn last_event(readers: &SqlitePool) -> Result<i64, StoreError> {
    let newest = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM events");
    newest.fetch_one(readers).await.map_err(sql("read the newest event"))
}

pub(crate) async fn events(
    pool: &SqlitePool,
    object: Option<String>,
    after: i64,
    limit: u32,
) -> Result<Vec<EventRow>, StoreError> {
    let rows = match object {
        Some(object) => {
            sqlx::query("SELECT * FROM events WHERE object = $1 AND seq > $2 ORDER BY seq LIMIT $3")
                .bind(object)
        }
        None => sqlx::query("SELECT * FROM events WHERE seq > $1 ORDER BY seq LIMIT $2"),
    };
    let rows = rows.bind(after).bind(i64::from(limit)).fetch_all(pool).await;
    rows.map_err(sql("read events"))?.iter().map(event).collect()
}

fn event(row: &SqliteRow) -> Result<EventRow, StoreError> {
    let seq: i64 = row.try_get("seq").map_err(sql("read an event"))?;
    let from = Reader { row, id: format!("event {seq}") };
    Ok(EventRow {
        seq,
        event: Event {
            at: from.time("at")?,
            kind: from.get("kind")?,
            object: from.get("object")?,
            principal: from.get("principal")?,
            detail: from.json("detail")?,
        },
    })
}

pub(crate) async fn records(
    pool: &SqlitePool,
    kind: &'static str,
) -> Result<Vec<(String, String)>, StoreError> {
    sqlx::query_as("SELECT id, body FROM records WHERE kind = $1 ORDER BY id")
        .bind(kind)
        .fetch_all(pool)
        .await
        .map_err(sql("read records"))
}

pub(crate) async fn meta(pool: &SqlitePool, key: &str) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar("SELECT value FROM meta WHERE key = $1")
        .bind(key)
        .fetch_optional(pool)
        .await
        .map_err(sql("read a fact"))
}
