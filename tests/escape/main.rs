//! The escape suite: every attempt is stopped by its wall, and every attempt is real.
//!
//! The first test runs `pinfold doctor --attack` as a user would. The second runs each attempt
//! again with every wall away (`bare.sh`), and requires another outcome: an attempt that ends the
//! same with and without walls would prove nothing. What this kernel does not have at all is
//! counted apart.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use testkit::{Server, bin};

/// Outcomes that say that this kernel or machine has nothing of the kind.
const ABSENT: &[&str] = &[
    "ENOENT",
    "ENOSYS",
    "ENODEV",
    "ENXIO",
    "EAFNOSUPPORT",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
    "empty",
    "none visible",
    "zeroes",
];

/// Attempts that even the host's root needs `CAP_SYS_RESOURCE` for, which some machines withhold.
const RESOURCE: &[&str] =
    &["proc-max-namespaces", "proc-own-oom-score", "own-rlimit", "use-pipes", "use-mqueue"];

/// Whether this process holds `CAP_SYS_RESOURCE` (24, capabilities(7)).
fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .is_some_and(|held| held & (1 << 24) != 0)
}

/// Attempts by name, each with its outcome inside a workspace.
fn walled() -> BTreeMap<String, (bool, String)> {
    let server = Server::start();
    let output = server.pinfold(&["doctor", "--attack", "--json"]);
    let lines: serde_json::Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    server.stop();
    lines
        .as_array()
        .expect("a list of attempts")
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let held = matches!(text("verdict").as_str(), "held" | "inapplicable");
            (text("id"), (held, text("detail")))
        })
        .collect()
}

/// One attempt without walls: the error's name, or `gained`, or how it ended.
fn bare(id: &str) -> String {
    let attacker = bin("pinfold-attack");
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork"])
        .args(["--mount-proc", "--propagation", "private", "setsid", "--wait"])
        .args(["bash", "-c", include_str!("bare.sh"), "bare"])
        .arg(&attacker)
        .arg(id)
        .stdin(Stdio::null())
        .output()
        .expect("unshare is part of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    let printed: Option<serde_json::Value> =
        text.lines().find_map(|line| serde_json::from_str(line).ok());
    let Some(outcome) = printed else {
        // `bare.sh` itself must not fail: nothing would have been tried.
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(124), "{id}: {:?} {error}", output.status);
        return "did not end".into();
    };
    match outcome["outcome"].as_str() {
        Some("gained") => "gained".into(),
        Some("refused") => outcome["error"].as_str().unwrap_or_default().to_owned(),
        _ => "inapplicable".into(),
    }
}

#[test]
fn every_attempt_is_stopped_and_every_attempt_is_real() {
    let walled = walled();
    assert!(walled.len() >= 80, "only {} attempts", walled.len());
    let broken: Vec<_> = walled.iter().filter(|(_, (held, _))| !held).collect();
    assert!(broken.is_empty(), "walls that did not hold: {broken:?}");

    let resource = may_raise_limits();
    let mut real = 0;
    let mut absent = Vec::new();
    let mut unproven = Vec::new();
    for (id, (_, inside)) in &walled {
        let outside = bare(id);
        if outside != *inside {
            real += 1;
        } else if ABSENT.contains(&outside.as_str()) || (!resource && RESOURCE.contains(&&**id)) {
            absent.push(id.as_str());
        } else {
            unproven.push(format!("{id}: {outside} with and without walls"));
        }
    }
    println!("{} attempts held; {real} shown to be real", walled.len());
    println!("not in this kernel or machine: {}", absent.join(" "));
    assert!(unproven.is_empty(), "attempts that prove nothing:\n{}", unproven.join("\n"));
    assert!(real >= 80, "only {real} attempts are shown to be real");
}
