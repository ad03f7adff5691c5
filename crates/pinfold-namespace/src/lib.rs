//! The namespace backend: walls made of namespaces, overlay, seccomp, Landlock and cgroups.
//!
//! A small helper process, `pinfold-launcher`, forks for every launch, so that the server never
//! copies its own address space. [`Launcher`] is the server's side of it, [`helper`] the inside.
//! [`Cgroups`] holds the resource limits. Nothing here falls back in silence: a wall that cannot
//! stand is an error that names the step ([`Step`]) and, where there is one, the mend.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod failure;
pub mod helper;
mod identity;
mod last_words;
mod launcher;
mod probe;
mod seccomp;
mod spec;
mod subids;
mod wire;

pub use cgroup::{CgroupJoin, CgroupStats, Cgroups, WorkspaceCgroup};
pub use failure::{Failure, Step};
pub use helper::FIRST_PROCESS;
pub use identity::{open_pidfd, process_matches, start_time};
pub use last_words::LastWords;
pub use launcher::{Launcher, LauncherOptions};
pub use probe::probe;
#[cfg(feature = "weaken")]
pub use spec::Weakness;
pub use spec::{IdRange, LaunchExtras, LaunchSpec, Launched};
pub use subids::sub_ids;

use pinfold_types::Mode;

/// Whether this process is root or an ordinary user.
pub fn mode() -> Mode {
    if rustix::process::geteuid().is_root() { Mode::Root } else { Mode::User }
}
