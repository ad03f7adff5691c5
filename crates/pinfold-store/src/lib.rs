//! State in SQLite: workspaces, snapshots, events, and small facts about the home.
//!
//! What a call of [`Store`] has acknowledged is on the disk: one task owns the only writing
//! connection, takes everything that waits in its queue, commits it as one transaction with one
//! `fdatasync`, and then answers every caller. Alone, a write costs one `fdatasync`; a hundred at
//! once cost about the same.
//!
//! Refusals: a database that others can read (AUTH-10), that a newer version has written, that is
//! damaged, or whose main file has gone while its log is there. None of these is mended by
//! starting empty.
//!
//! Only this crate contains SQL.
//!
//! ```no_run
//! # async fn example() -> pinfold_types::Result<()> {
//! let store = pinfold_store::Store::open("/var/lib/pinfold/state.db").await?;
//! for row in store.workspaces().await? {
//!     let _ = row.name;
//! }
//! store.close().await;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod audit;
mod backup;
mod change;
mod connect;
mod error;
mod file;
mod read;
mod rows;
mod stats;
mod store;
mod writer;

pub use change::Change;
pub use error::StoreError;
pub use rows::{Event, EventRow, SnapshotRow, SnapshotState, WorkspaceRow, WorkspaceSpec};
pub use stats::StoreStats;
pub use store::{MAX_EVENTS_PAGE, Store};
