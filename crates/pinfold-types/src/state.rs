//! The life of a workspace: one enum, one transition function.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode};

/// Where a workspace is in its life. Only [`WorkspaceState::next`] moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceState {
    /// Recorded; its disk is being made. After a crash it is undone.
    Creating,
    /// A boot is under way.
    Starting,
    /// Its guest answers.
    Running,
    /// Its processes are frozen; memory is kept.
    Paused,
    /// Its processes are being ended.
    Stopping,
    /// No processes; the disk is kept.
    Stopped,
    /// Being removed. After a crash it is finished.
    Destroying,
    /// Its disk or record is damaged; only removal is possible. The reason is kept beside it.
    Failed,
    /// Gone. Never stored.
    Destroyed,
}

/// What happens to a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceEvent {
    /// The disk is ready.
    DiskReady,
    /// A boot begins.
    Start,
    /// The guest answered.
    GuestReady,
    /// Freeze all processes.
    Pause,
    /// Thaw all processes.
    Resume,
    /// End all processes.
    Stop,
    /// The guest is gone: asked for, killed or crashed.
    GuestGone,
    /// Remove everything.
    Destroy,
    /// All of it is removed.
    Removed,
    /// A disk or record cannot be used.
    Damage,
}

impl WorkspaceState {
    /// Every state.
    pub const ALL: &'static [Self] = &[
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Destroying,
        Self::Failed,
        Self::Destroyed,
    ];

    /// The state after `event`, or a conflict that says what the workspace is and what it would
    /// have to be.
    pub fn next(self, event: WorkspaceEvent) -> Result<Self, Error> {
        use WorkspaceEvent as E;
        use WorkspaceState as S;
        Ok(match (self, event) {
            (S::Creating, E::DiskReady)
            | (S::Starting | S::Running | S::Paused | S::Stopping, E::GuestGone) => S::Stopped,
            (S::Creating | S::Stopped, E::Start) => S::Starting,
            (S::Starting, E::GuestReady) | (S::Paused, E::Resume) => S::Running,
            (S::Running, E::Pause) => S::Paused,
            (S::Running | S::Paused | S::Starting, E::Stop) => S::Stopping,
            (S::Destroying, E::Removed) => S::Destroyed,
            (S::Destroyed | S::Destroying, _) => return Err(self.refuse(event)),
            (_, E::Destroy) => S::Destroying,
            (_, E::Damage) => S::Failed,
            _ => return Err(self.refuse(event)),
        })
    }

    /// Whether processes of the workspace may exist.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Stopping)
    }

    /// The state as it appears in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Destroying => "destroying",
            Self::Failed => "failed",
            Self::Destroyed => "destroyed",
        }
    }

    fn refuse(self, event: WorkspaceEvent) -> Error {
        if (self, event) == (Self::Stopped, WorkspaceEvent::Stop) {
            return Error::new(ErrorCode::Conflict, "it is stopped already")
                .hint("nothing is left to do");
        }
        let hint = match (self, event) {
            (Self::Stopped, _) => "start it first: pinfold start",
            (Self::Paused, _) => "resume it first: pinfold resume",
            (Self::Running | Self::Starting, WorkspaceEvent::Start) => "it is started already",
            (Self::Failed, _) => "it can only be removed: pinfold rm",
            _ => "look at its state: pinfold info",
        };
        Error::new(
            ErrorCode::Conflict,
            format!("a workspace that is {self} cannot {}", event.verb()),
        )
        .hint(hint)
    }
}

impl WorkspaceEvent {
    /// Every event.
    pub const ALL: &'static [Self] = &[
        Self::DiskReady,
        Self::Start,
        Self::GuestReady,
        Self::Pause,
        Self::Resume,
        Self::Stop,
        Self::GuestGone,
        Self::Destroy,
        Self::Removed,
        Self::Damage,
    ];

    const fn verb(self) -> &'static str {
        match self {
            Self::DiskReady => "receive its disk",
            Self::Start => "start",
            Self::GuestReady => "become ready",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::GuestGone => "lose its guest",
            Self::Destroy => "be destroyed",
            Self::Removed => "be removed",
            Self::Damage => "be marked as damaged",
        }
    }
}

impl fmt::Display for WorkspaceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_event() -> impl Strategy<Value = WorkspaceEvent> {
        prop::sample::select(WorkspaceEvent::ALL)
    }

    proptest! {
        /// Whatever happens, a workspace can be destroyed until it is, and never comes back.
        #[test]
        fn destroy_is_always_possible_once(events in prop::collection::vec(any_event(), 0..64)) {
            let mut state = WorkspaceState::Creating;
            for event in events {
                let before = state;
                match state.next(event) {
                    Ok(after) => state = after,
                    Err(refused) => {
                        prop_assert_eq!(refused.code, ErrorCode::Conflict);
                        prop_assert!(refused.hint.is_some());
                        prop_assert_eq!(state, before);
                    }
                }
                if before == WorkspaceState::Destroyed {
                    prop_assert_eq!(state, WorkspaceState::Destroyed);
                }
                if before == WorkspaceState::Destroying {
                    prop_assert!(matches!(state, WorkspaceState::Destroying | WorkspaceState::Destroyed));
                }
            }
            if !matches!(state, WorkspaceState::Destroyed | WorkspaceState::Destroying) {
                prop_assert_eq!(state.next(WorkspaceEvent::Destroy).expect("destroyable"), WorkspaceState::Destroying);
            }
        }

        /// Processes exist only between a start and the loss of the guest.
        #[test]
        fn live_only_after_start(events in prop::collection::vec(any_event(), 0..64)) {
            let mut state = WorkspaceState::Creating;
            let mut started = false;
            for event in events {
                if let Ok(after) = state.next(event) {
                    started = match event {
                        WorkspaceEvent::Start => true,
                        WorkspaceEvent::GuestGone | WorkspaceEvent::Destroy | WorkspaceEvent::Damage => false,
                        _ => started,
                    };
                    state = after;
                }
                prop_assert!(!state.is_live() || started);
            }
        }
    }
}
