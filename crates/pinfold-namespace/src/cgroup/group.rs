//! The groups of one workspace.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pinfold_types::{Error, ErrorCode, Result, WorkspaceId, limits::ResourceLimits};
use rustix::process::{Pid, Signal};

use super::{CgroupJoin, hierarchy::Hierarchies, limits, stop::Processes};

/// Longest wait for all processes to be frozen.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for killed processes to be gone and their groups removable.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a workspace uses and ran into. Absent: no controller tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// Memory charged now, bytes.
    pub memory_bytes: Option<u64>,
    /// CPU time of all its processes, microseconds.
    pub cpu_usec: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Forks refused at the process limit.
    pub pids_hits: Option<u64>,
}

/// A workspace's groups in all hierarchies.
#[derive(Clone, Debug)]
pub struct WorkspaceCgroup {
    id: WorkspaceId,
    /// Controller and directory of each v1 group.
    v1: Vec<(String, PathBuf)>,
    unified: Option<PathBuf>,
    kind: String,
    /// Held still by signals where there is no freezer.
    processes: Option<Processes>,
}

impl WorkspaceCgroup {
    fn nowhere(hierarchies: &Hierarchies, id: &WorkspaceId) -> Self {
        let kind = hierarchies.kind().to_owned();
        Self { id: *id, v1: Vec::new(), unified: None, kind, processes: None }
    }

    /// Says which process is the first of the workspace, so that all can be held still by signals
    /// where there is no freezer.
    #[must_use]
    pub fn of_first(self, pid: i32, start_time: u64) -> Self {
        Self { processes: Some(Processes::new(pid, start_time)), ..self }
    }

    pub(super) fn create(hierarchies: &Hierarchies, id: &WorkspaceId) -> Result<Self> {
        let mut made = Self::nowhere(hierarchies, id);
        let name = id.to_string();
        let mut directories: Vec<PathBuf> = Vec::new();
        for base in &hierarchies.v1 {
            let directory = base.directory.join(&name);
            // cpu and cpuacct are usually one hierarchy.
            if !directories.contains(&directory) {
                directories.push(directory.clone());
            }
            made.v1.push((base.name.clone(), directory));
        }
        if let Some(base) = &hierarchies.unified {
            let directory = base.directory.join(&name);
            directories.push(directory.clone());
            made.unified = Some(directory);
        }
        for (place, directory) in directories.iter().enumerate() {
            if let Err(error) = fs::create_dir(directory) {
                // Only what this call made: the rest is somebody else's.
                for own in &directories[..place] {
                    let _ = fs::remove_dir(own);
                }
                let shown = directory.display();
                return Err(match error.kind() {
                    io::ErrorKind::AlreadyExists => Error::new(
                        ErrorCode::Conflict,
                        format!("the cgroup {shown} of {id} is there already"),
                    )
                    .hint("an earlier boot left it; the next start of the server reclaims it"),
                    _ => Error::new(
                        ErrorCode::CannotEnforce,
                        format!("cannot make the cgroup {shown}: {error}"),
                    )
                    .hint("`pinfold doctor` tells which limits can be enforced here"),
                });
            }
        }
        Ok(made)
    }

    pub(super) fn open(hierarchies: &Hierarchies, id: &WorkspaceId) -> Option<Self> {
        let name = id.to_string();
        let present = |directory: PathBuf| directory.is_dir().then_some(directory);
        let mut found = Self::nowhere(hierarchies, id);
        let all = hierarchies.v1.iter().chain(&hierarchies.unified).chain(&hierarchies.earlier);
        for base in all {
            let Some(directory) = present(base.directory.join(&name)) else { continue };
            if base.name == "unified" {
                found.unified.get_or_insert(directory);
            } else if found.directory(&base.name).is_none() {
                found.v1.push((base.name.clone(), directory));
            }
        }
        // Where nothing can be made, a workspace has groups in no hierarchy, and that is all of them.
        (found.has_groups() || hierarchies.is_empty()).then_some(found)
    }

    /// What the launcher needs.
    pub fn join(&self) -> CgroupJoin {
        let tasks: BTreeSet<PathBuf> =
            self.v1.iter().map(|(_, directory)| directory.join("tasks")).collect();
        CgroupJoin {
            tasks: tasks.into_iter().collect(),
            unified: self.unified.clone(),
            kind: self.kind.clone(),
        }
    }

    /// Sets the limits that are present; absent ones stay as they are.
    pub fn apply(&self, wanted: &ResourceLimits) -> Result<()> {
        limits::apply(self, wanted)
    }

    /// What it uses now.
    pub fn stats(&self) -> CgroupStats {
        let v1 = |controller: &str, file: &str| self.directory(controller).map(|d| d.join(file));
        let v2 = |file: &str| self.unified.as_ref().map(|d| d.join(file));
        let number = |v1: Option<PathBuf>, v2: Option<PathBuf>| {
            v1.and_then(|file| read_number(&file))
                .or_else(|| v2.and_then(|file| read_number(&file)))
        };
        let keyed = |v1: Option<PathBuf>, v2: Option<PathBuf>, key: &str| {
            v1.and_then(|file| read_key(&file, key))
                .or_else(|| v2.and_then(|file| read_key(&file, key)))
        };
        CgroupStats {
            memory_bytes: number(v1("memory", "memory.usage_in_bytes"), v2("memory.current")),
            cpu_usec: v1("cpuacct", "cpuacct.usage")
                .and_then(|file| read_number(&file))
                .map(|nanoseconds| nanoseconds / 1000)
                .or_else(|| v2("cpu.stat").and_then(|file| read_key(&file, "usage_usec"))),
            pids: number(v1("pids", "pids.current"), v2("pids.current")),
            oom_kills: keyed(v1("memory", "memory.oom_control"), v2("memory.events"), "oom_kill"),
            pids_hits: keyed(v1("pids", "pids.events"), v2("pids.events"), "max"),
        }
    }

    /// Stops every process where it stands, and waits until all are.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    /// Kills every process of the workspace, also frozen ones. Returns at once; [`Self::remove`]
    /// waits for their end.
    pub fn kill(&self) -> Result<()> {
        if !self.has_groups() {
            return Ok(());
        }
        let unified = self.unified.as_ref().map(|directory| directory.join("cgroup.kill"));
        if let Some(file) = unified.filter(|file| file.exists()) {
            fs::write(&file, "1").map_err(|error| self.failed("kill", &file, &error))?;
        } else {
            self.kill_one_by_one();
        }
        // A process frozen by v1 dies when it is thawed. A group that is removed already, while
        // another was still busy, freezes nothing.
        match self.directory("freezer") {
            Some(directory) => {
                self.thaw().or_else(|failed| if directory.exists() { Err(failed) } else { Ok(()) })
            }
            None => Ok(()),
        }
    }

    /// Kills what is left, waits for its end (10 s at most) and removes the groups. Groups that
    /// are gone already are no error.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut pause = Duration::from_micros(100);
        loop {
            let Some((directory, error)) = self.remove_once() else { return Ok(()) };
            if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > deadline {
                return Err(self.failed("remove", &directory, &error));
            }
            self.kill()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Host pids of all its processes.
    pub fn processes(&self) -> Vec<i32> {
        let mut all = BTreeSet::new();
        for directory in self.directories() {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        all.into_iter().filter(|pid| *pid > 0).collect()
    }

    pub(super) fn directory(&self, controller: &str) -> Option<&Path> {
        let found = self.v1.iter().find(|(name, _)| name == controller);
        found.map(|(_, directory)| directory.as_path())
    }

    pub(super) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    pub(super) fn failed(&self, what: &str, file: &Path, error: &io::Error) -> Error {
        Error::new(
            ErrorCode::CannotEnforce,
            format!("cannot {what} the cgroup of {}: {}: {error}", self.id, file.display()),
        )
    }

    fn has_groups(&self) -> bool {
        self.unified.is_some() || !self.v1.is_empty()
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|(_, directory)| directory.as_path()).chain(self.unified.as_deref())
    }

    fn remove_once(&self) -> Option<(PathBuf, io::Error)> {
        let mut busy = None;
        for directory in self.directories() {
            match fs::remove_dir(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => busy = Some((directory.to_owned(), error)),
            }
        }
        busy
    }

    fn kill_one_by_one(&self) {
        // Frozen processes cannot fork while they are counted.
        let _ = self.set_frozen(true);
        for pid in self.processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.set_frozen(false);
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let verb = if frozen { "freeze" } else { "thaw" };
        let (file, value, state, wanted) = if let Some(directory) = self.directory("freezer") {
            let file = directory.join("freezer.state");
            let state = file.clone();
            let value = if frozen { "FROZEN" } else { "THAWED" };
            (file, value, state, value)
        } else if let Some(directory) = &self.unified {
            let value = if frozen { "1" } else { "0" };
            let wanted = if frozen { "frozen 1" } else { "frozen 0" };
            (directory.join("cgroup.freeze"), value, directory.join("cgroup.events"), wanted)
        } else if let Some(processes) = &self.processes {
            return if frozen { processes.stop() } else { processes.go_on() };
        } else {
            return Err(Error::new(
                ErrorCode::CannotEnforce,
                format!("cannot {verb} {}: this machine has no freezer cgroup to use", self.id),
            )
            .hint("pausing needs cgroup v2, or v1 with the freezer controller"));
        };
        let deadline = Instant::now() + FREEZE_TIMEOUT;
        let mut pause = Duration::from_micros(50);
        loop {
            // v1 must be asked again while a process is in a call it cannot leave yet.
            fs::write(&file, value).map_err(|error| self.failed(verb, &file, &error))?;
            let now =
                fs::read_to_string(&state).map_err(|error| self.failed(verb, &state, &error))?;
            if now.lines().any(|line| line == wanted) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = frozen.then(|| self.set_frozen(false));
                return Err(Error::new(
                    ErrorCode::Timeout,
                    format!("the processes of {} did not {verb} in 10 s", self.id),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }
}

fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn read_key(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key { value.trim().parse().ok() } else { None }
    })
}
