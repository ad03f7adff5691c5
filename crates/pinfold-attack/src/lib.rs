//! What an attacker inside a workspace would try.
//!
//! Each [`Attempt`] is one move against one wall, with the place it is known from and the errors
//! that this wall gives. The program `pinfold-attack` is carried into a workspace and runs one
//! attempt a process, so that a crash, a kill or a hang is a result like any other.
//!
//! `pinfold doctor --attack` runs all of them in a walled workspace on the user's own machine and
//! prints the table. The project's tests run them a second time in a workspace from which that
//! one wall was taken, and require another outcome: an attempt that cannot tell the two apart
//! proves nothing.
//!
//! This program is the one place outside `pinfold-sys` with unsafe code: an attacker makes raw
//! system calls with wrong arguments on purpose, which no safe wrapper can offer. It is never
//! linked into the server, the launcher or the guest.
#![expect(unsafe_code, reason = "an attacker makes raw calls that no safe wrapper offers")]
#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "raw system call arguments are machine words, whatever their sign"
)]

pub mod catalogue;
mod devices;
mod exhaustion;
mod files;
mod kernel;
mod leaks;
mod mounts;
mod namespaces;
mod processes;
mod procfs;
pub mod raw;
mod sockets;

use serde::{Deserialize, Serialize};

/// What kind of move an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Entering or making namespaces.
    Namespaces,
    /// Mounting, moving and pivoting.
    Mounts,
    /// `/proc` and `/sys`.
    ProcSys,
    /// Device nodes and terminals.
    Devices,
    /// Kernel interfaces with a history of holes.
    Syscalls,
    /// Signals, tracing and other processes' memory.
    Processes,
    /// Sockets of every family.
    Sockets,
    /// Symbolic links, `..` and magic links.
    Paths,
    /// Descriptors that should not be there.
    Descriptors,
    /// Environment and arguments that should not be there.
    Environment,
    /// Control groups.
    Cgroups,
    /// Using up memory, processes, disk, files and time.
    Exhaustion,
    /// The channel between host and guest.
    Channel,
    /// Ids, capabilities and privilege.
    Privilege,
}

/// The wall that an attempt runs against: what must be taken away for it to end otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// The seccomp filter.
    Seccomp,
    /// Capabilities dropped.
    Capabilities,
    /// The own user namespace and its id range.
    UserNamespace,
    /// The own pid namespace.
    PidNamespace,
    /// The own network namespace.
    NetNamespace,
    /// The own IPC namespace.
    IpcNamespace,
    /// The own UTS namespace.
    UtsNamespace,
    /// The own cgroup namespace.
    CgroupNamespace,
    /// The pivoted root.
    Root,
    /// Masks and read-only mounts over `/proc` and `/sys`.
    Masks,
    /// The private `/dev`.
    Devices,
    /// Process 1 is not dumpable.
    Undumpable,
    /// `no_new_privs`.
    NoNewPrivs,
    /// Limits by cgroups.
    Cgroups,
    /// Disk quota.
    Quota,
    /// Resource limits of processes.
    Rlimits,
    /// Descriptors closed before the guest starts.
    Descriptors,
    /// Environment cleared before the guest starts.
    Environment,
    /// Landlock.
    Landlock,
}

/// How an attempt ended inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// The move worked; what was gained.
    Gained {
        /// Evidence.
        evidence: String,
    },
    /// It was refused with this error name (`EPERM`, …) or this finding.
    Refused {
        /// Errno name, or a word for refusals that have none.
        error: String,
    },
    /// This machine has nothing to attack here.
    Inapplicable {
        /// Why.
        reason: String,
    },
}

/// The result type of an attempt's body: what was gained, or the error met.
pub type Tried = Result<String, Stop>;

/// Why a body stopped.
#[derive(Clone, Debug)]
pub enum Stop {
    /// A system call failed.
    Errno(i32),
    /// Nothing was found to take.
    Nothing(&'static str),
    /// Not to be tried on this machine.
    Inapplicable(String),
}

/// One move.
#[derive(Debug)]
pub struct Attempt {
    /// Stable name, kebab-case.
    pub id: &'static str,
    /// Kind.
    pub category: Category,
    /// The wall it runs against.
    pub wall: Wall,
    /// One sentence: what is tried.
    pub what: &'static str,
    /// Where it is known from: a CVE, a manual page, a paper, an issue.
    pub source: &'static str,
    /// Errors that mean the wall held. `killed` means a signal ended the attempt.
    pub held: &'static [&'static str],
    /// The body.
    pub body: fn() -> Tried,
}

/// What an attempt says of itself, for whoever runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Stable name.
    pub id: String,
    /// Kind.
    pub category: Category,
    /// The wall it runs against.
    pub wall: Wall,
    /// What is tried.
    pub what: String,
    /// Where it is known from.
    pub source: String,
    /// Errors that mean the wall held.
    pub held: Vec<String>,
}

impl Attempt {
    /// What it says of itself.
    pub fn entry(&self) -> Entry {
        Entry {
            id: self.id.to_owned(),
            category: self.category,
            wall: self.wall,
            what: self.what.to_owned(),
            source: self.source.to_owned(),
            held: self.held.iter().map(|error| (*error).to_owned()).collect(),
        }
    }

    /// Runs the body in this process.
    pub fn run(&self) -> Outcome {
        match (self.body)() {
            Ok(evidence) => Outcome::Gained { evidence },
            Err(Stop::Errno(errno)) => Outcome::Refused { error: raw::errno_name(errno) },
            Err(Stop::Nothing(word)) => Outcome::Refused { error: word.to_owned() },
            Err(Stop::Inapplicable(reason)) => Outcome::Inapplicable { reason },
        }
    }
}
