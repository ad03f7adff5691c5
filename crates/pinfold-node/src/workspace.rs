//! One workspace in the server's memory: its record, its present boot, and who uses it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use pinfold_store::WorkspaceRow;
use pinfold_types::{
    Error, ErrorCode, Result, WorkspaceEvent, WorkspaceId, WorkspaceName, WorkspaceState,
    workspace::{EgressMode, WorkspaceInfo},
};
use tokio::sync::watch;

use crate::{activity::Activity, live::Live, output::OutputTail, rate::OutputRate};

/// A workspace. Everything that changes its state holds [`Workspace::operation`] meanwhile;
/// commands and file operations do not.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) id: WorkspaceId,
    /// One lifecycle operation at a time. Never held while waiting for another workspace.
    pub(crate) operation: tokio::sync::Mutex<()>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) rate: OutputRate,
    pub(crate) tail: OutputTail,
    /// The disk was found full at the last look.
    pub(crate) disk_full: AtomicBool,
    /// Its expiry is under way.
    pub(crate) expiring: AtomicBool,
    /// A throw-away workspace found at recovery, whose client has not come back yet.
    pub(crate) orphaned: AtomicBool,
    cell: Mutex<Cell>,
    states: watch::Sender<WorkspaceState>,
}

/// What changes together.
#[derive(Debug)]
struct Cell {
    row: WorkspaceRow,
    /// Environment of every command, while this server or the guest holds it. Never recorded.
    env: BTreeMap<String, String>,
    /// Environment of the start-up command. Never recorded either.
    command_env: BTreeMap<String, String>,
    live: Option<Arc<Live>>,
}

impl Cell {
    /// What its owner should know before relying on it.
    fn warnings(&self) -> Vec<String> {
        let count = self.row.spec.env_count;
        let variables = if count == 1 { "variable" } else { "variables" };
        if count == 0 || !self.env.is_empty() {
            Vec::new()
        } else if self.row.spec.env_lost {
            vec![format!(
                "it runs without the {count} environment {variables} it was created with: they are \
                 held in memory only, and the server was restarted; give them to each command \
                 with --env"
            )]
        } else {
            vec![format!(
                "the {count} environment {variables} it was created with are held in memory only, \
                 and the server was restarted: they end with this boot"
            )]
        }
    }
}

impl Workspace {
    pub(crate) fn new(
        row: WorkspaceRow,
        env: BTreeMap<String, String>,
        command_env: BTreeMap<String, String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: row.id,
            operation: tokio::sync::Mutex::new(()),
            activity: Arc::new(Activity::new(row.last_active_at)),
            rate: OutputRate::new(row.spec.limits.output_bytes_per_second),
            tail: OutputTail::default(),
            disk_full: AtomicBool::new(false),
            expiring: AtomicBool::new(false),
            orphaned: AtomicBool::new(false),
            states: watch::Sender::new(row.state),
            cell: Mutex::new(Cell { row, env, command_env, live: None }),
        })
    }

    fn cell(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> WorkspaceName {
        self.cell().row.name.clone()
    }

    pub(crate) fn state(&self) -> WorkspaceState {
        self.cell().row.state
    }

    /// A copy of the record as it stands.
    pub(crate) fn row(&self) -> WorkspaceRow {
        let cell = self.cell();
        let mut row = cell.row.clone();
        row.last_active_at = row.last_active_at.max(self.activity.last());
        row
    }

    /// Reads or changes the record without copying it. `read` must not block.
    pub(crate) fn with_row<T>(&self, read: impl FnOnce(&mut WorkspaceRow) -> T) -> T {
        read(&mut self.cell().row)
    }

    /// Moves the state by the one transition function, changes the record with it, and returns
    /// the record to be stored.
    pub(crate) fn advance(
        &self,
        event: WorkspaceEvent,
        change: impl FnOnce(&mut WorkspaceRow),
    ) -> Result<WorkspaceRow> {
        let mut cell = self.cell();
        let next = cell.row.state.next(event).map_err(|refused| Error {
            message: format!("workspace {:?}: {}", cell.row.name.as_str(), refused.message),
            ..refused
        })?;
        cell.row.state = next;
        change(&mut cell.row);
        if !next.is_live() {
            cell.live = None;
        }
        cell.row.last_active_at = cell.row.last_active_at.max(self.activity.last());
        let row = cell.row.clone();
        drop(cell);
        self.states.send_replace(next);
        Ok(row)
    }

    /// Undoes an [`Workspace::advance`] whose record could not be stored.
    pub(crate) fn put_back(&self, row: WorkspaceRow, live: Option<Arc<Live>>) {
        let mut cell = self.cell();
        let state = row.state;
        cell.row = row;
        cell.live = live;
        drop(cell);
        self.states.send_replace(state);
    }

    /// The present boot, whatever the state.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.cell().live.clone()
    }

    pub(crate) fn set_live(&self, live: Arc<Live>) {
        self.cell().live = Some(live);
    }

    /// The present boot of a workspace that runs, or why it cannot take commands.
    pub(crate) fn running(&self) -> Result<Arc<Live>> {
        let cell = self.cell();
        match (cell.row.state, &cell.live) {
            (WorkspaceState::Running, Some(live)) => Ok(Arc::clone(live)),
            (state, _) => Err(not_running(&cell.row.name, state)),
        }
    }

    /// The environment to boot with: of every command, and of the start-up command.
    pub(crate) fn envs(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let cell = self.cell();
        (cell.env.clone(), cell.command_env.clone())
    }

    /// Follows the state.
    pub(crate) fn states(&self) -> watch::Receiver<WorkspaceState> {
        self.states.subscribe()
    }

    /// As callers see it.
    pub(crate) fn info(&self) -> WorkspaceInfo {
        let cell = self.cell();
        let row = &cell.row;
        WorkspaceInfo {
            id: row.id,
            name: row.name.clone(),
            state: row.state,
            reason: row.reason.clone(),
            boot: row.boot,
            image: row.image_name.to_string(),
            limits: row.spec.statuses.clone(),
            walls: cell.live.as_ref().map(|live| live.walls.clone()),
            lineage: row.lineage.clone(),
            labels: row.spec.labels.clone(),
            owner: row.spec.holder.principal,
            session: row.spec.holder.session,
            egress: EgressMode::DenyAll,
            created_at: row.created_at,
            started_at: row.started_at.filter(|_| row.state.is_live()),
            expires_at: row.expires_at,
            idle_ms: row.spec.idle_ms,
            pid: cell.live.as_ref().map(|live| live.pid),
            warnings: cell.warnings(),
        }
    }
}

fn not_running(name: &WorkspaceName, state: WorkspaceState) -> Error {
    let hint = match state {
        WorkspaceState::Stopped => "start it first: pinfold start",
        WorkspaceState::Paused => "resume it first: pinfold resume",
        WorkspaceState::Failed => "it can only be removed: pinfold rm",
        _ => "look at its state: pinfold info",
    };
    Error::new(ErrorCode::Conflict, format!("workspace {:?} is {state}", name.as_str())).hint(hint)
}
