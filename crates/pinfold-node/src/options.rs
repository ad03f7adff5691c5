//! What a node is opened with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pinfold_store::Store;
use pinfold_types::{Mode, config::Config};

use crate::Inside;

/// Longest wait for a new guest to answer.
pub(crate) const GUEST_READY: Duration = Duration::from_secs(15);
/// Longest wait for the guest of an adopted workspace to answer at recovery.
pub(crate) const GUEST_ADOPT: Duration = Duration::from_secs(3);

/// Everything a [`crate::LocalNode`] needs to know.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// `$PINFOLD_HOME`: 0700 and the caller's; the server's lock on it is held.
    pub home: PathBuf,
    /// The configuration.
    pub config: Config,
    /// The open state database.
    pub store: Store,
    /// The `pinfold-launcher` program.
    pub launcher_binary: PathBuf,
    /// The `pinfold-guest` program.
    pub guest_binary: PathBuf,
    /// Root or ordinary user.
    pub mode: Mode,
    /// How long `stop` waits for processes to end by themselves.
    pub stop_grace: Duration,
    /// How long a throw-away workspace found at recovery waits for its client to come back.
    pub reattach_grace: Duration,
    /// Who answers programs inside; without one no workspace has a way to the server.
    pub inside: Option<Arc<dyn Inside>>,
}

impl NodeOptions {
    /// Options with the usual times, for the mode this process runs in.
    pub fn new(
        home: PathBuf,
        config: Config,
        store: Store,
        launcher_binary: PathBuf,
        guest_binary: PathBuf,
    ) -> Self {
        let mode = if rustix::process::geteuid().is_root() { Mode::Root } else { Mode::User };
        Self {
            home,
            config,
            store,
            launcher_binary,
            guest_binary,
            mode,
            stop_grace: Duration::from_secs(5),
            reattach_grace: Duration::from_secs(30),
            inside: None,
        }
    }
}
