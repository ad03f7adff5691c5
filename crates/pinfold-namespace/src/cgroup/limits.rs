//! Limits as the controllers spell them.

use std::{fs, path::Path};

use pinfold_types::{
    Error, Result,
    limits::{LimitKind, ResourceLimits},
};

use super::{cannot_enforce, group::WorkspaceCgroup};

/// Microseconds over which a CPU cap is counted.
const PERIOD_USEC: u64 = 100_000;

/// `cpu.shares` for a weight: 1024 is usual there as 100 is here.
pub(super) fn shares(weight: u64) -> u64 {
    (weight * 1024 / 100).clamp(2, 262_144)
}

/// Microseconds of CPU in each period.
pub(super) fn quota(millis: u64) -> u64 {
    (millis * PERIOD_USEC / 1000).max(1000)
}

pub(super) fn apply(group: &WorkspaceCgroup, wanted: &ResourceLimits) -> Result<()> {
    memory(group, wanted)?;
    if let Some(pids) = wanted.pids {
        let (_, directory) = place(group, "pids", LimitKind::Pids)?;
        set(group, &directory.join("pids.max"), &pids.to_string())?;
    }
    if let Some(millis) = wanted.cpu_millis {
        let quota = quota(millis);
        match place(group, "cpu", LimitKind::Cpu)? {
            (Version::One, directory) => {
                set(group, &directory.join("cpu.cfs_period_us"), &PERIOD_USEC.to_string())?;
                set(group, &directory.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
            (Version::Two, directory) => {
                set(group, &directory.join("cpu.max"), &format!("{quota} {PERIOD_USEC}"))?;
            }
        }
    }
    if let Some(weight) = wanted.cpu_weight {
        match place(group, "cpu", LimitKind::CpuWeight)? {
            (Version::One, directory) => {
                set(group, &directory.join("cpu.shares"), &shares(weight).to_string())?;
            }
            (Version::Two, directory) => {
                set(group, &directory.join("cpu.weight"), &weight.to_string())?;
            }
        }
    }
    Ok(())
}

fn memory(group: &WorkspaceCgroup, wanted: &ResourceLimits) -> Result<()> {
    if wanted.memory_bytes.is_none() && wanted.swap_bytes.is_none() {
        return Ok(());
    }
    match place(group, "memory", LimitKind::Memory)? {
        (Version::Two, directory) => {
            if let Some(bytes) = wanted.memory_bytes {
                set(group, &directory.join("memory.max"), &bytes.to_string())?;
            }
            if let Some(bytes) = wanted.swap_bytes {
                set(group, &directory.join("memory.swap.max"), &bytes.to_string())?;
            }
            Ok(())
        }
        (Version::One, directory) => memory_v1(group, wanted, directory),
    }
}

/// v1 counts swap together with memory, and refuses a memory limit above that sum: whichever
/// is raised must be raised in the right order.
fn memory_v1(group: &WorkspaceCgroup, wanted: &ResourceLimits, directory: &Path) -> Result<()> {
    let memory_file = directory.join("memory.limit_in_bytes");
    let sum_file = directory.join("memory.memsw.limit_in_bytes");
    let number = |file: &Path| {
        fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    let (now_memory, now_sum) = (number(&memory_file), number(&sum_file));
    let memory = wanted.memory_bytes.or(now_memory).unwrap_or(u64::MAX);
    let sum = match (wanted.swap_bytes, now_memory, now_sum) {
        (Some(swap), _, Some(_)) => Some(memory.saturating_add(swap)),
        (Some(_), _, None) => {
            return Err(cannot_enforce(LimitKind::Swap, "the kernel does not count swap"));
        }
        // The memory limit moves and the swap beyond it stays as it was.
        (None, Some(old_memory), Some(old_sum)) if old_sum < UNLIMITED => {
            Some(memory.saturating_add(old_sum.saturating_sub(old_memory)))
        }
        (None, _, _) => None,
    };
    // v1 counts what waits in TCP sockets apart, where it counts it at all.
    let sockets_file = directory.join("memory.kmem.tcp.limit_in_bytes");
    if let Some(bytes) = wanted.memory_bytes.filter(|_| sockets_file.exists()) {
        set(group, &sockets_file, &bytes.to_string())?;
    }
    let write_memory = || match wanted.memory_bytes {
        Some(bytes) => set(group, &memory_file, &bytes.to_string()),
        None => Ok(()),
    };
    match sum {
        Some(sum) if now_sum.is_some_and(|now| sum > now) => {
            set(group, &sum_file, &sum.to_string())?;
            write_memory()
        }
        Some(sum) => {
            write_memory()?;
            set(group, &sum_file, &sum.to_string())
        }
        None => write_memory(),
    }
}

/// v1 shows "no limit" as the greatest multiple of a page below 2^63.
const UNLIMITED: u64 = 1 << 62;

enum Version {
    One,
    Two,
}

fn place<'g>(
    group: &'g WorkspaceCgroup,
    controller: &str,
    kind: LimitKind,
) -> Result<(Version, &'g Path)> {
    if let Some(directory) = group.directory(controller) {
        return Ok((Version::One, directory));
    }
    let unified = group.unified().filter(|directory| {
        let probe = match controller {
            "memory" => "memory.max",
            "cpu" => "cpu.max",
            _ => "pids.max",
        };
        directory.join(probe).exists()
    });
    unified
        .map(|directory| (Version::Two, directory))
        .ok_or_else(|| cannot_enforce(kind, "the workspace's cgroup has no such controller"))
}

fn set(group: &WorkspaceCgroup, file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).map_err(|error| {
        let failed: Error = group.failed(&format!("set {value} in"), file, &error);
        match error.raw_os_error() {
            Some(libc::EBUSY) => {
                failed.hint("the workspace uses more than that now; stop some of its processes")
            }
            _ => failed,
        }
    })
}
