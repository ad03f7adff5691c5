//! Resource limits of a workspace, and the published limits of the program itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode};

/// Fewest bytes of memory a workspace can be given.
pub const MIN_MEMORY_BYTES: u64 = 16 << 20;
/// Fewest processes a workspace can be given.
pub const MIN_PIDS: u64 = 8;
/// Fewest bytes of disk a workspace can be given.
pub const MIN_DISK_BYTES: u64 = 16 << 20;
/// Most children one fork request makes.
pub const MAX_FORK_COUNT: u32 = 1000;
/// Most environment variables of one process or workspace.
pub const MAX_ENV_VARS: usize = 1024;
/// Most bytes of all environment names and values together.
pub const MAX_ENV_BYTES: usize = 1 << 20;
/// Most arguments of one command.
pub const MAX_ARGS: usize = 8192;
/// Most bytes of all arguments together.
pub const MAX_ARGS_BYTES: usize = 2 << 20;
/// Most bytes of a path inside a workspace (Linux `PATH_MAX` less the NUL).
pub const MAX_PATH_BYTES: usize = 4095;
/// Most bytes of a JSON request body.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// Most labels on a workspace.
pub const MAX_LABELS: usize = 64;
/// Longest time limit of a command: 30 days.
pub const MAX_TIMEOUT_MS: u64 = 30 * 24 * 3600 * 1000;
/// Most exec streams of one workspace at once.
pub const MAX_EXECS_PER_WORKSPACE: usize = 1024;

/// What a caller asks for. Absent means the profile's default; what the machine cannot enforce
/// is refused, never ignored (PF-11).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLimits {
    /// Memory of all processes with page cache and tmpfs. An OOM kill is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::Memory.range().0, max = LimitKind::Memory.range().1))]
    pub memory_bytes: Option<u64>,
    /// Swap beyond memory. 0 means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::Swap.range().0, max = LimitKind::Swap.range().1))]
    pub swap_bytes: Option<u64>,
    /// CPU cap in thousandths of one CPU: 1500 is one and a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::Cpu.range().0, max = LimitKind::Cpu.range().1))]
    pub cpu_millis: Option<u64>,
    /// CPU share against other workspaces when the machine is busy, 1 to 10000, 100 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::CpuWeight.range().0, max = LimitKind::CpuWeight.range().1))]
    pub cpu_weight: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::Pids.range().0, max = LimitKind::Pids.range().1))]
    pub pids: Option<u64>,
    /// Bytes on the workspace's own disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::Disk.range().0, max = LimitKind::Disk.range().1))]
    pub disk_bytes: Option<u64>,
    /// Files and directories on the workspace's own disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::Inodes.range().0, max = LimitKind::Inodes.range().1))]
    pub disk_inodes: Option<u64>,
    /// Open files of one process (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::OpenFiles.range().0, max = LimitKind::OpenFiles.range().1))]
    pub open_files: Option<u64>,
    /// Output of all commands together that the server will carry, bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LimitKind::Output.range().0, max = LimitKind::Output.range().1))]
    pub output_bytes_per_second: Option<u64>,
}

/// The kinds of limit.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Memory.
    Memory,
    /// Swap.
    Swap,
    /// CPU cap.
    Cpu,
    /// CPU share.
    CpuWeight,
    /// Processes and threads.
    Pids,
    /// Disk bytes.
    Disk,
    /// Disk inodes.
    Inodes,
    /// Open files per process.
    OpenFiles,
    /// Output rate.
    Output,
}

impl LimitKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Memory,
        Self::Swap,
        Self::Cpu,
        Self::CpuWeight,
        Self::Pids,
        Self::Disk,
        Self::Inodes,
        Self::OpenFiles,
        Self::Output,
    ];

    /// The field of [`ResourceLimits`] this kind belongs to.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Memory => "memory_bytes",
            Self::Swap => "swap_bytes",
            Self::Cpu => "cpu_millis",
            Self::CpuWeight => "cpu_weight",
            Self::Pids => "pids",
            Self::Disk => "disk_bytes",
            Self::Inodes => "disk_inodes",
            Self::OpenFiles => "open_files",
            Self::Output => "output_bytes_per_second",
        }
    }

    /// The least and the greatest value, in the unit of the field.
    pub const fn range(self) -> (u64, u64) {
        match self {
            Self::Memory => (MIN_MEMORY_BYTES, 1 << 46),
            Self::Swap => (0, 1 << 46),
            Self::Cpu => (10, 1_024_000),
            Self::CpuWeight => (1, 10_000),
            Self::Pids => (MIN_PIDS, 4 << 20),
            Self::Disk => (MIN_DISK_BYTES, 1 << 50),
            Self::Inodes => (64, 1 << 40),
            Self::OpenFiles => (64, 1 << 20),
            Self::Output => (1024, 1 << 40),
        }
    }
}

/// One limit as it stands for a workspace or a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitStatus {
    /// Which limit.
    pub kind: LimitKind,
    /// Its value in the unit of its field; absent means not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// What enforces it ("cgroup v1 memory", "btrfs qgroup", …), or why nothing can here.
    pub by: String,
    /// Whether it is enforced. `false` with a value never happens.
    pub enforced: bool,
}

impl ResourceLimits {
    /// The value asked for, by kind.
    pub const fn get(&self, kind: LimitKind) -> Option<u64> {
        match kind {
            LimitKind::Memory => self.memory_bytes,
            LimitKind::Swap => self.swap_bytes,
            LimitKind::Cpu => self.cpu_millis,
            LimitKind::CpuWeight => self.cpu_weight,
            LimitKind::Pids => self.pids,
            LimitKind::Disk => self.disk_bytes,
            LimitKind::Inodes => self.disk_inodes,
            LimitKind::OpenFiles => self.open_files,
            LimitKind::Output => self.output_bytes_per_second,
        }
    }

    /// Sets the value by kind.
    pub fn set(&mut self, kind: LimitKind, value: Option<u64>) {
        *match kind {
            LimitKind::Memory => &mut self.memory_bytes,
            LimitKind::Swap => &mut self.swap_bytes,
            LimitKind::Cpu => &mut self.cpu_millis,
            LimitKind::CpuWeight => &mut self.cpu_weight,
            LimitKind::Pids => &mut self.pids,
            LimitKind::Disk => &mut self.disk_bytes,
            LimitKind::Inodes => &mut self.disk_inodes,
            LimitKind::OpenFiles => &mut self.open_files,
            LimitKind::Output => &mut self.output_bytes_per_second,
        } = value;
    }

    /// Values of `self` where present, else of `base`.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let mut merged = base.clone();
        for kind in LimitKind::ALL {
            if let Some(value) = self.get(*kind) {
                merged.set(*kind, Some(value));
            }
        }
        merged
    }

    /// Refuses values outside their published range.
    pub fn check(&self) -> Result<(), Error> {
        for kind in LimitKind::ALL {
            let (low, high) = kind.range();
            if let Some(value) = self.get(*kind).filter(|value| !(low..=high).contains(value)) {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("{} of {value} is outside {low} to {high}", kind.field()),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for kind in LimitKind::ALL {
            let mut limits = ResourceLimits::default();
            limits.set(*kind, Some(u64::MAX));
            let refused = limits.check().expect_err("too much");
            assert!(refused.message.contains(kind.field()), "{}", refused.message);
        }
        assert!(ResourceLimits::default().check().is_ok());
    }
}
