//! What the workspace uses, seen from inside through `/proc`.

use std::fs;

use pinfold_proto::GuestStats;

use crate::guest::Guest;

/// Microseconds of one clock tick: the kernel shows times in hundredths of a second to programs
/// whatever it counts in itself (`USER_HZ`).
const TICK_USEC: u64 = 10_000;
const PAGE_BYTES: u64 = 4096;

/// `utime`, `stime`, `cutime`, `cstime` in ticks, threads, and resident pages of one process.
fn process(pid: &str) -> Option<(u64, u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let own = number(11)? + number(12)?;
    // Only PID 1 sees the time of processes that have ended: each passes through it or its
    // parent's account.
    let children = number(13)? + number(14)?;
    let ticks = if pid == "1" || pid == "self" { own + children } else { own };
    Some((ticks, number(17)?, number(21)?))
}

/// All of it. What cannot be read is 0.
pub fn collect(guest: &Guest) -> GuestStats {
    let uptime = guest.started.elapsed();
    let mut stats = GuestStats {
        execs: guest.execs.live() as u64,
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        guest_resident_bytes: process("self").map_or(0, |(.., pages)| pages * PAGE_BYTES),
        ..GuestStats::default()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if let Some((ticks, threads, pages)) = process(&name) {
            stats.cpu_usec = stats.cpu_usec.saturating_add(ticks.saturating_mul(TICK_USEC));
            stats.pids = stats.pids.saturating_add(threads);
            stats.resident_bytes =
                stats.resident_bytes.saturating_add(pages.saturating_mul(PAGE_BYTES));
        }
    }
    if let Ok(disk) = rustix::fs::statvfs("/") {
        stats.disk_free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        stats.disk_used_bytes =
            disk.f_blocks.saturating_sub(disk.f_bfree).saturating_mul(disk.f_frsize);
    }
    stats
}
