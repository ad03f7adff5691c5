//! The async runtime and the memory of this process, at a glance.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::runtime::Handle;

/// One look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Look {
    /// Version of the program.
    pub version: &'static str,
    /// Threads that run tasks, one entry each.
    pub workers: Vec<Worker>,
    /// Tasks that live.
    pub tasks_alive: usize,
    /// Tasks that wait for any worker. Long means that all are busy or stuck.
    pub tasks_queued: usize,
    /// Threads of the process.
    pub threads: u64,
    /// Descriptors that it has open.
    pub open_files: u64,
    /// Memory in bytes, by the names of `/proc/self/smaps_rollup` in lower case: `rss`, `pss`,
    /// `anonymous`, `private_dirty`, `swap` and the others.
    pub memory_bytes: BTreeMap<String, u64>,
}

/// One thread that runs tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Worker {
    /// Time that it was busy, since the start.
    pub busy_ms: u64,
    /// How often it went to sleep for want of work.
    pub parks: u64,
}

/// Looks at `runtime` and at this process. Reads files of `/proc`.
pub fn look(version: &'static str, runtime: &Handle) -> Look {
    let metrics = runtime.metrics();
    let workers = (0..metrics.num_workers()).map(|worker| Worker {
        busy_ms: u64::try_from(metrics.worker_total_busy_duration(worker).as_millis())
            .unwrap_or(u64::MAX),
        parks: metrics.worker_park_count(worker),
    });
    Look {
        version,
        workers: workers.collect(),
        tasks_alive: metrics.num_alive_tasks(),
        tasks_queued: metrics.global_queue_depth(),
        threads: entries("/proc/self/task"),
        open_files: entries("/proc/self/fd"),
        memory_bytes: memory(
            &std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default(),
        ),
    }
}

fn entries(directory: &str) -> u64 {
    let count = std::fs::read_dir(directory).map_or(0, Iterator::count);
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// `Name:   12 kB` lines; the first line, with the range of addresses, is none.
fn memory(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some((name.to_ascii_lowercase(), kilobytes.saturating_mul(1024)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_lines() {
        let text = "55d0-7ffe ---p 00000000 00:00 0   [rollup]\nRss:      12 kB\nPss_Anon:  3 kB\n";
        let expected = [("rss".to_owned(), 12 << 10), ("pss_anon".to_owned(), 3 << 10)];
        assert_eq!(memory(text), expected.into());
    }

    #[tokio::test]
    async fn a_look_sees_this_process() {
        let found = look("1", &Handle::current());
        assert!(!found.workers.is_empty() && found.threads > 0 && found.open_files > 0);
        assert!(found.memory_bytes.get("rss").is_some_and(|bytes| *bytes > 0));
    }
}
