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

/// Takes as much as it can get of what the kernel counts for a user or the machine, and says how
/// much that was.
const HOARD: &str = r#"
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
found = {"inotify": 0, "signals": 0, "queues": 0, "terminals": 0, "aio": 0}
# Of the host only a little, which other tests use meanwhile.
most = 2 if sys.argv[1] == "little" else 1 << 30
while found["inotify"] < most and libc.inotify_init1(0) >= 0:
    found["inotify"] += 1
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
class Value(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("pointer", ctypes.c_void_p)]
while found["signals"] < most and libc.sigqueue(os.getpid(), 40, Value(number=1)) == 0:
    found["signals"] += 1
class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("flags", "most", "size", "now")] + [("rest", ctypes.c_long * 4)]
while found["queues"] < most:
    attributes = Attributes(0, 10, 8192, 0)
    name = b"/hoard-%d" % found["queues"]
    if libc.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, ctypes.byref(attributes)) < 0:
        break
    found["queues"] += 1
try:
    while found["terminals"] < most:
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        found["terminals"] += 1
except OSError:
    pass
context = ctypes.c_ulong(0)
found["aio"] = int(libc.syscall(206, 1000, ctypes.byref(context)) == 0)
print(" ".join(str(found[key]) for key in found), flush=True)
if sys.argv[1] == "hold":
    time.sleep(600)
"#;

#[test]
fn what_one_workspace_hoards_the_others_still_have() {
    let server = Server::start();
    for name in ["hoarder", "other"] {
        server.pinfold(&["create", name]).ok();
    }
    let hoard = |name: &str, how: &str| -> Vec<u64> {
        let said = server.pinfold(&["exec", name, "--", "python3", "-c", HOARD, how]).ok();
        said.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    };
    let alone = hoard("other", "look");
    let held =
        server.pinfold(&["exec", "--background", "hoarder", "--", "python3", "-c", HOARD, "hold"]);
    let exec = held.ok().trim().to_owned();
    testkit::until("the hoard", std::time::Duration::from_mins(1), || {
        let shown = server.pinfold(&["exec", "hoarder", "--", "sh", "-c", "ls /dev/pts | wc -l"]);
        (shown.ok().trim().parse::<u64>().ok()? > 100).then_some(())
    });
    assert_eq!(hoard("other", "look"), alone, "{exec} took from another workspace");
    // Watches and signals of the host's root: some must be there.
    let here = Command::new("python3").args(["-c", HOARD, "little"]).output().expect("python3");
    let here = String::from_utf8_lossy(&here.stdout).into_owned();
    for name in std::fs::read_dir("/dev/mqueue").into_iter().flatten().flatten() {
        if name.file_name().to_string_lossy().starts_with("hoard-") {
            let _ = std::fs::remove_file(name.path());
        }
    }
    let here: Vec<u64> =
        here.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    assert!(here[0] > 1 && here[1] > 1, "the host's root has nothing left: {here:?}");
    assert_eq!((alone[3], alone[4]), (128, 0), "terminals are bounded, kernel AIO is absent");
    server.stop();
}
