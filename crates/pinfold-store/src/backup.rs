//! A copy of the database while it is in use.

use std::path::Path;

use pinfold_types::Result;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteJournalMode};

use crate::{Store, StoreError, connect, file};

fn sql(step: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Sql { step, source }
}

impl Store {
    /// Writes all that was acknowledged so far into a new database at `path`, 0600, as it was at
    /// one instant: one file without a log, on the disk when this returns. Writers go on meanwhile.
    pub async fn backup_to(&self, path: &Path) -> Result<()> {
        self.flush().await?;
        let draft = file::begin_new(path)?;
        let made = copy(self.path(), &draft).await;
        if let Err(failed) = made.and_then(|()| file::finish_new(&draft, path)) {
            let _gone = std::fs::remove_file(&draft);
            return Err(failed.into());
        }
        Ok(())
    }
}

async fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = connect::options(from).connect().await.map_err(sql("open for a backup"))?;
    let target = to.to_string_lossy().into_owned();
    let copied = sqlx::query("VACUUM INTO $1")
        .bind(target)
        .execute(&mut source)
        .await
        .map_err(sql("copy the database"));
    let closed = source.close().await.map_err(sql("close the database"));
    copied?;
    closed?;
    // A copy is made without a write-ahead log; what runs on it wants one.
    let copy = connect::options(to).journal_mode(SqliteJournalMode::Wal);
    let copy = copy.connect().await.map_err(sql("open the copy"))?;
    copy.close().await.map_err(sql("close the copy"))
}
