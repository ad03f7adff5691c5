//! Opening: checks first, then the schema, then the connections.

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions, Connection, Row, SqlSafeStr, SqliteConnection, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    StoreError,
    error::is_damage,
    file::{self, Found},
};

/// `PFld`: marks the file as ours.
const APPLICATION_ID: i64 = 0x5046_6c64;
/// How long a statement waits for another program's lock. Ours never wait for each other.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most reading connections; each is one thread.
const MAX_READERS: u32 = 4;
/// A reading connection that nobody used for this long is closed.
const READER_IDLE: Duration = Duration::from_mins(1);

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "workspaces", include_str!("../migrations/sqlite/0001_workspaces.sql")),
    (2, "records", include_str!("../migrations/sqlite/0002_records.sql")),
];

fn migrator() -> Migrator {
    Migrator::with_migrations(
        MIGRATIONS
            .iter()
            .map(|(version, name, sql)| {
                let sql = sql.into_sql_str();
                Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
            })
            .collect(),
    )
}

/// Newest schema that this program knows.
pub(crate) fn known_version() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}

pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // FULL: every commit waits until the log is on the disk
        // (https://www.sqlite.org/pragma.html#pragma_synchronous).
        .synchronous(SqliteSynchronous::Full)
        // Checkpoints are run beside the writer, never inside a commit that somebody waits for.
        .pragma("wal_autocheckpoint", "0")
        .thread_name(|place| format!("state-{place}"))
        .disable_statement_logging()
}

fn sql(step: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Sql { step, source }
}

/// Everything open.
pub(crate) struct Opened {
    pub(crate) writer: SqliteConnection,
    pub(crate) checkpointer: SqliteConnection,
    pub(crate) readers: SqlitePool,
    pub(crate) created: bool,
}

pub(crate) async fn open(path: &Path) -> Result<Opened, StoreError> {
    let found = file::inspect(path)?;
    if found == Found::Nothing {
        create(path).await?;
    }
    file::lengthen_log(path)?;
    let connect = || async { options(path).connect().await.map_err(|err| at_open(path, err)) };
    let mut writer = connect().await?;
    if found != Found::Nothing {
        check_ours(path, &mut writer).await?;
        check_sound(path, &mut writer, found == Found::Unclean).await?;
    }
    migrator()
        .run_direct(None, &mut writer, false)
        .await
        .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
    let readers = SqlitePoolOptions::new()
        .min_connections(0)
        .max_connections(MAX_READERS)
        .idle_timeout(READER_IDLE)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options(path).pragma("query_only", "ON"));
    let checkpointer = connect().await?;
    Ok(Opened { writer, checkpointer, readers, created: found == Found::Nothing })
}

/// Builds a whole database under another name and then gives it its own, so that an empty or
/// half-made file is always damage and never a beginning.
async fn create(path: &Path) -> Result<(), StoreError> {
    let draft = file::begin_new(path)?;
    let mut conn = options(&draft)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("application_id", APPLICATION_ID.to_string())
        .connect()
        .await
        .map_err(sql("create the database"))?;
    migrator()
        .run_direct(None, &mut conn, false)
        .await
        .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut conn)
        .await
        .map_err(sql("write the new database"))?;
    conn.close().await.map_err(sql("close the new database"))?;
    file::finish_new(&draft, path)
}

fn at_open(path: &Path, source: sqlx::Error) -> StoreError {
    if is_damage(&source) {
        StoreError::Damaged { path: path.to_owned(), problem: source.to_string() }
    } else {
        StoreError::Sql { step: "open the database", source }
    }
}

async fn check_ours(path: &Path, conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let damaged = |problem: &str| {
        Err(StoreError::Damaged { path: path.to_owned(), problem: problem.to_owned() })
    };
    let id: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *conn)
        .await
        .map_err(|err| at_open(path, err))?;
    if id != APPLICATION_ID {
        return damaged("it is a SQLite database, but not one of Pinfold's");
    }
    let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *conn)
        .await
        .map_err(|err| at_open(path, err))?;
    match found {
        None => damaged("it has no schema version"),
        Some(found) if found > known_version() => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: known_version() })
        }
        Some(_) => Ok(()),
    }
}

/// After an orderly end only the tables that everything hangs on are checked, which takes well
/// under a millisecond; after any other end, the whole file.
async fn check_sound(
    path: &Path,
    conn: &mut SqliteConnection,
    whole: bool,
) -> Result<(), StoreError> {
    let checks: &[&'static str] = if whole {
        &["PRAGMA quick_check(1)"]
    } else {
        &[
            "PRAGMA quick_check('workspaces')",
            "PRAGMA quick_check('snapshots')",
            "PRAGMA quick_check('meta')",
        ]
    };
    for check in checks {
        let row =
            sqlx::query(*check).fetch_one(&mut *conn).await.map_err(|err| at_open(path, err))?;
        let verdict: String = row.try_get(0).map_err(sql("read the check's verdict"))?;
        if verdict != "ok" {
            return Err(StoreError::Damaged { path: path.to_owned(), problem: verdict });
        }
    }
    Ok(())
}
