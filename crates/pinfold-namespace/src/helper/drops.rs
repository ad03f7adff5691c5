//! What the workload does not get: capabilities and unbounded resources.

use pinfold_sys::privilege::keep_capabilities;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{AtStep, Failure, Step};

/// The capabilities root keeps inside, all of them over the workspace's own ids and files only.
const KEPT: [(u32, &str); 12] = [
    (0, "CHOWN: packages give files to their users"),
    (1, "DAC_OVERRIDE: root reads and writes everybody's files, as root expects"),
    (3, "FOWNER: chmod and utimes on others' files, for package managers and tar"),
    (4, "FSETID: keeps set-id bits when root unpacks"),
    (5, "KILL: root ends other users' processes"),
    (6, "SETGID: su, runuser, services that drop to their user"),
    (7, "SETUID: the same"),
    (8, "SETPCAP: setpriv and capsh give up more"),
    (10, "NET_BIND_SERVICE: ports below 1024 on its own loopback"),
    (18, "SYS_CHROOT: chroot within its own root, for package builds and sshd"),
    (29, "AUDIT_WRITE: held for PAM, though the kernel honours it outside of user namespaces only"),
    (31, "SETFCAP: packages with file capabilities unpack; no_new_privs keeps them without effect"),
];

/// Drops every capability but [`KEPT`], from all sets and for good.
pub(super) fn capabilities() -> std::io::Result<()> {
    keep_capabilities(KEPT.iter().fold(0, |bits, (number, _)| bits | 1 << number))
}

/// Limits of each process. Kernel-side totals (memory, processes) are the cgroup's business.
pub(super) fn resource_limits(open_files: Option<u64>) -> Result<(), Failure> {
    let fixed = |value| Rlimit { current: Some(value), maximum: Some(value) };
    // No core file, and no program of the host's that the kernel would pipe it to: for that, one
    // byte and not zero is the limit that counts (`core(5)`, "Piping core dumps to a program"). The
    // filter keeps it so.
    setrlimit(Resource::Core, fixed(1)).on(Step::ResourceLimit, "core")?;
    // No real-time or raised priority against the host's own processes.
    setrlimit(Resource::Rtprio, fixed(0)).on(Step::ResourceLimit, "rtprio")?;
    setrlimit(Resource::Nice, fixed(0)).on(Step::ResourceLimit, "nice")?;
    if let Some(wanted) = open_files {
        let most = getrlimit(Resource::Nofile).maximum;
        if most.is_some_and(|most| most < wanted) {
            return Err(Failure::said(
                Step::ResourceLimit,
                "open files",
                format!("the server's own hard limit is {}", most.unwrap_or_default()),
            ));
        }
        setrlimit(Resource::Nofile, fixed(wanted)).on(Step::ResourceLimit, "open files")?;
    }
    Ok(())
}
