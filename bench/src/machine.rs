//! What the numbers were measured on.

use std::{fs, path::Path, process::Command};

use anyhow::Context;

/// A line each: processor, memory, kernel, programs.
pub(crate) fn describe(pinfold: &Path) -> anyhow::Result<Vec<String>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = field(&cpuinfo, "model name").unwrap_or("unknown processor");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let memory: u64 = field(&meminfo, "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let version = Command::new(pinfold).arg("--version").output().context("pinfold --version")?;
    Ok(vec![
        format!("{cores} cores of {model}, {} GiB of memory", memory >> 20),
        format!("Linux {}, load at the start {}", kernel.trim(), load.join(" ")),
        String::from_utf8_lossy(&version.stdout).trim().to_owned(),
    ])
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// Proportional set size of a process, bytes.
pub(crate) fn pss_bytes(pid: i64) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    let kib: u64 = field(&text, "Pss")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .context("smaps_rollup has Pss")?;
    Ok(kib * 1024)
}
