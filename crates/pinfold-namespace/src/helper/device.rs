//! The workspace's own `/dev`: harmless nodes, terminals of its own, shared memory that is
//! charged to it, and nothing of the host's.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{CWD, Mode},
    mount::MountAttrFlags,
};

use super::{files, mounts};
use crate::failure::{AtStep, Failure, Step};

/// Nodes that show nothing of the host and take nothing from it.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Everything for `/dev`, taken from the host's while that can still be seen.
pub(super) struct Devices {
    nodes: Vec<OwnedFd>,
    dev: OwnedFd,
    pts: OwnedFd,
    shm: OwnedFd,
    mqueue: OwnedFd,
}

impl Devices {
    pub(super) fn open(shm_bytes: u64) -> Result<Self, Failure> {
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let closed = quiet | MountAttrFlags::MOUNT_ATTR_NODEV;
        let nodes = NODES
            .iter()
            .map(|name| {
                let path = format!("/dev/{name}");
                mounts::clone_of(CWD, &path).on(Step::Dev, &path)
            })
            .collect::<Result<_, _>>()?;
        let dev = mounts::filesystem(
            "tmpfs",
            &[("mode", "755"), ("size", "1m"), ("nr_inodes", "1024")],
            quiet,
        )
        .at(Step::Dev)?;
        // newinstance is the only kind there is since Linux 4.7.
        let pts = mounts::filesystem(
            "devpts",
            &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
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
        for (name, node) in NODES.iter().zip(&self.nodes) {
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
