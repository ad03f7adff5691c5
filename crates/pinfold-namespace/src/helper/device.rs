//! The workspace's own `/dev`: harmless nodes, terminals of its own, shared memory that is
//! charged to it, and nothing of the host's.

use std::os::fd::{AsFd, OwnedFd};

use pinfold_sys::mounts::{NO_EXEC, NO_SUID, READ_ONLY, set_attributes};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::MountAttrFlags,
};

use super::{files, mounts};
use crate::failure::{AtStep, Failure, Step};

/// Nodes that show nothing of the host and take nothing from it, with their numbers
/// (`Documentation/admin-guide/devices.txt`).
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Most terminals of one workspace; the machine has 4096 for all (`kernel.pty.max`).
const TERMINALS: &str = "128";

/// Nothing about a node can be changed through such a mount; what is read from and written to the
/// device behind it is no change of the node (`mount(2)`, `MS_RDONLY`).
const NODE_FLAGS: u64 = READ_ONLY | NO_SUID | NO_EXEC;

/// Nodes of the workspace's own, as only the host's root can make them: with the host's, locks and
/// watches on them would be seen by the host and every other workspace.
pub(super) fn make_nodes() -> Result<OwnedFd, Failure> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("mode", "755"), ("size", "4k"), ("nr_inodes", "16")];
    let nodes = mounts::filesystem("tmpfs", &options, quiet).at(Step::Dev)?;
    rustix::process::umask(Mode::empty());
    for (name, major, minor) in NODES {
        let (mode, number) = (Mode::from_raw_mode(0o666), makedev(major, minor));
        mknodat(&nodes, name, FileType::CharacterDevice, mode, number).on(Step::Dev, name)?;
    }
    set_attributes(nodes.as_fd(), NODE_FLAGS, None).at(Step::Dev)?;
    Ok(nodes)
}

/// Everything for `/dev`, taken from the host's while that can still be seen.
pub(super) struct Devices {
    nodes: Vec<OwnedFd>,
    dev: OwnedFd,
    pts: OwnedFd,
    shm: OwnedFd,
    mqueue: OwnedFd,
}

impl Devices {
    /// `nodes` are those of [`make_nodes`]; without them, the host's own are taken. The working
    /// directory is the staging one.
    pub(super) fn open(shm_bytes: u64, nodes: Option<OwnedFd>) -> Result<Self, Failure> {
        const PLACE: &str = "nodes";
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let closed = quiet | MountAttrFlags::MOUNT_ATTR_NODEV;
        let ours = nodes.is_some();
        let from = match nodes {
            Some(nodes) => {
                rustix::fs::mkdir(PLACE, Mode::from_raw_mode(0o755)).at(Step::Dev)?;
                mounts::attach(&nodes, CWD, PLACE).at(Step::Dev)?;
                PLACE
            }
            None => "/dev",
        };
        let nodes = NODES
            .iter()
            .map(|(name, ..)| {
                let path = format!("{from}/{name}");
                let node = mounts::clone_of(CWD, &path).on(Step::Dev, &path)?;
                // A clone has the flags of its source, which only the host's own nodes lack.
                if !ours {
                    set_attributes(node.as_fd(), NODE_FLAGS, None).on(Step::Dev, &path)?;
                }
                Ok(node)
            })
            .collect::<Result<_, Failure>>()?;
        let dev = mounts::filesystem(
            "tmpfs",
            &[("mode", "755"), ("size", "1m"), ("nr_inodes", "1024")],
            quiet,
        )
        .at(Step::Dev)?;
        // newinstance is the only kind there is since Linux 4.7.
        let pts = mounts::filesystem(
            "devpts",
            &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"), ("max", TERMINALS)],
            quiet,
        )
        .on(Step::Dev, "/dev/pts")?;
        let size = shm_bytes.to_string();
        let shm = mounts::filesystem(
            "tmpfs",
            &[("mode", "1777"), ("size", &size), ("nr_inodes", "65536")],
            closed,
        )
        .on(Step::Dev, "/dev/shm")?;
        let mqueue = mounts::filesystem("mqueue", &[], closed).on(Step::Dev, "/dev/mqueue")?;
        Ok(Self { nodes, dev, pts, shm, mqueue })
    }

    /// Puts everything at `/dev` of the root, which is the workspace's own by now.
    pub(super) fn place(self) -> Result<(), Failure> {
        files::ensure_directory("/dev", 0o755)?;
        mounts::attach(&self.dev, CWD, "/dev").at(Step::Dev)?;
        for ((name, ..), node) in NODES.iter().zip(&self.nodes) {
            files::mount_point(&self.dev, name).on(Step::Dev, name)?;
            mounts::attach(node, &self.dev, *name).on(Step::Dev, name)?;
        }
        for (name, mount) in [("pts", &self.pts), ("shm", &self.shm), ("mqueue", &self.mqueue)] {
            rustix::fs::mkdirat(&self.dev, name, Mode::from_raw_mode(0o755)).on(Step::Dev, name)?;
            mounts::attach(mount, &self.dev, name).on(Step::Dev, name)?;
        }
        for (name, target) in [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            rustix::fs::symlinkat(target, &self.dev, name).on(Step::Dev, name)?;
        }
        Ok(())
    }
}
