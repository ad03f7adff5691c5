//! Whom to kill.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use testkit::Home;

use crate::model::Random;

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// `pinfold up`.
    Server,
    /// The helper that starts workspaces.
    Launcher,
    /// Process 1 of a workspace.
    Guest,
    /// A command in a workspace.
    Command,
}

impl Victim {
    pub(crate) fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0..=3 => Self::Server,
            4 => Self::Launcher,
            5..=7 => Self::Guest,
            _ => Self::Command,
        }
    }

    /// Kills one of its kind, if there is one.
    pub(crate) fn kill(self, home: &Home, random: &mut Random) -> bool {
        let all: Vec<i32> = home.leftovers().processes.into_iter().collect();
        let fitting: Vec<i32> =
            all.into_iter().filter(|pid| Self::of(*pid) == Some(self)).collect();
        random
            .pick(&fitting)
            .and_then(|pid| Pid::from_raw(*pid))
            .is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// Whether a process is of this kind.
    pub(crate) fn is(self, pid: i32) -> bool {
        Self::of(pid) == Some(self)
    }

    fn of(pid: i32) -> Option<Self> {
        let dir = Path::new("/proc").join(pid.to_string());
        let comm = std::fs::read_to_string(dir.join("comm")).ok()?;
        let line = std::fs::read(dir.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        match comm.trim() {
            "pinfold" if line.contains(" up") => Some(Self::Server),
            // The test's own commands are killed by nobody: their exit is the acknowledgement.
            "pinfold" => None,
            name if name.starts_with("pinfold-launch") => Some(Self::Launcher),
            name if name.starts_with("pinfold-guest") => Some(Self::Guest),
            _ => Some(Self::Command),
        }
    }
}
