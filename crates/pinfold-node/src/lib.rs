//! The workspaces of one machine: lifecycle, images, pool, recovery.
//!
//! [`LocalNode`] puts the mechanisms together: `pinfold-namespace` for walls, `pinfold-disk` for
//! disks, `pinfold-image` for roots, `pinfold-store` for what must survive. Its promises:
//!
//! * What a call has acknowledged is recorded, and survives the end of any process. The record is
//!   written beside the work, and the answer waits for both.
//! * What fails is undone, what is cut short is finished or undone at the next
//!   [`LocalNode::open`], and nothing stays that no record names.
//! * A cancelled call never leaves a thing half made or frozen: work runs to its end on its own.
//! * One workspace's trouble is its own: there is a lock per workspace, none above them, and
//!   commands take none at all.
//! * No limit exists on paper only, and no right grows by a fork.
//!
//! What is not here: who may do what (`pinfold-control` asks for a grant first), any protocol
//! toward callers, and anything that decides about the outside.
//!
//! ```no_run
//! # async fn example(store: pinfold_store::Store) -> pinfold_types::Result<()> {
//! use pinfold_node::{LocalNode, NodeOptions};
//! use pinfold_types::{config::Config, exec::ExecSpec, workspace::CreateWorkspace};
//!
//! let home = "/var/lib/pinfold";
//! let bin = |name: &str| std::path::PathBuf::from(format!("{home}/bin/{name}"));
//! let options = NodeOptions::new(
//!     home.into(), Config::default(), store, bin("pinfold-launcher"), bin("pinfold-guest"),
//! );
//! let (node, recovered) = LocalNode::open(options).await?;
//! for action in recovered {
//!     println!("{} {}: {}", action.action, action.object, action.reason);
//! }
//! let workspace = node.create(CreateWorkspace::default()).await?;
//! let stream = node.exec(workspace.name.as_str(), ExecSpec::argv(["true"])).await?;
//! let (result, _, _) = stream.collect(1 << 20).await?;
//! assert_eq!(result.exit_code, Some(0));
//! node.destroy(workspace.name.as_str()).await
//! # }
//! ```
#![forbid(unsafe_code)]

mod activity;
mod backup;
mod boot;
mod build;
mod channel;
mod counts;
mod doctor;
mod exec;
mod files;
mod fork;
pub mod guest;
mod holders;
mod home;
mod images;
mod inside;
mod lifecycle;
mod limits;
mod live;
mod logs;
mod make;
mod names;
mod node;
mod options;
mod output;
mod rate;
mod ready;
mod reaper;
mod recover;
mod registry;
mod slots;
mod snapshots;
mod watch;
mod workspace;

pub use backup::{BackupContents, BackupManifest, Restored, restore, verify};
pub use counts::NodeCounts;
pub use exec::ExecStream;
pub use files::Tunnel;
pub use guest::{ByteStream, ExecEvent, ExecHandle, TcpTunnel};
pub use home::home_tag;
pub use inside::{Inside, InsideBoot, TokenFuture};
pub use node::LocalNode;
pub use options::NodeOptions;
pub use output::OUTPUT_TAIL_BYTES;
pub use snapshots::MAX_SNAPSHOTS;
