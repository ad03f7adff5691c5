//! What stands, and what this mode cannot have.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use serde_json::Value;
use testkit::{Output, User};

use crate::usable;

/// Limits that take cgroups or quotas, which nobody has delegated to a test's user.
const ABSENT: [&str; 7] = ["memory", "swap", "cpu", "cpu_weight", "pids", "disk", "inodes"];

fn limit<'a>(limits: &'a Value, kind: &str) -> &'a Value {
    let all = limits.as_array().expect("limits");
    all.iter().find(|limit| limit["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {all:?}"))
}

#[test]
fn every_wall_stands_and_what_cannot_be_enforced_is_absent() {
    let Some(user) = usable() else { return };
    user.pinfold(&["create", "w"]).ok();
    let info = user.pinfold(&["info", "w", "--json"]).json();
    let walls = &info["walls"];
    assert_eq!(walls["mode"], "user", "{walls}");
    assert_eq!(walls["seccomp"], true, "{walls}");
    assert_eq!(walls["namespaces"].as_array().map(Vec::len), Some(8), "{walls}");

    let output = user.pinfold(&["doctor", "--json"]);
    let report: serde_json::Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"));
    for kind in ABSENT {
        for (shown, limits) in [("info", &info["limits"]), ("doctor", &report["limits"])] {
            let found = limit(limits, kind);
            assert_eq!(found["enforced"], false, "{shown}: {found}");
            assert!(found["value"].is_null(), "{shown}: {found}");
            assert!(found["by"].as_str().is_some_and(|why| !why.is_empty()), "{shown}: {found}");
        }
    }
    assert_eq!(limit(&info["limits"], "open_files")["enforced"], true);
    for check in ["memory_bytes", "pids", "disk_bytes"] {
        let findings = report["findings"].as_array().expect("findings");
        let about: Vec<_> = findings.iter().filter(|found| found["check"] == check).collect();
        assert_eq!(about.len(), 1, "{check} is said once: {about:?}");
        assert!(about[0]["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{about:?}");
    }
    for (flag, value) in [("--memory", "64M"), ("--pids", "50"), ("--disk", "64M"), ("--cpus", "1")]
    {
        let refused = user.pinfold(&["create", "x", flag, value]);
        assert_eq!(refused.code, 9, "{flag}: {refused:?}");
        assert!(refused.stderr.contains("cannot be enforced here"), "{flag}: {refused:?}");
    }
    assert_eq!(user.pinfold(&["info", "x"]).code, 3, "nothing was made");
    inside(&user);
}

/// Looks at the walls from inside.
fn inside(user: &User) {
    let map = format!("0 {} 65536", user.sub_ids());
    for (line, wanted) in [
        ("id -u; id -g", "0\n0"),
        ("tr -s ' ' < /proc/self/uid_map | sed 's/^ //'", map.as_str()),
        ("tr -s ' ' < /proc/self/gid_map | sed 's/^ //'", map.as_str()),
        ("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2", "1\n2"),
        ("grep -E '^Cap(Bnd|Eff):' /proc/self/status | cut -f2 | sort -u", "00000000a00405fb"),
        ("unshare -Ur true 2>/dev/null || echo refused", "refused"),
        ("mount -t tmpfs none /mnt 2>/dev/null || echo refused", "refused"),
        ("mknod /tmp/null c 1 3 2>/dev/null || echo refused", "refused"),
        ("cat /proc/1/environ 2>/dev/null || echo refused", "refused"),
        ("cat /proc/keys /proc/kmsg 2>/dev/null | wc -c", "0"),
        ("echo x 2>/dev/null > /proc/sys/kernel/domainname || echo refused", "refused"),
        ("touch /usr/x 2>/dev/null || echo refused", "refused"),
        ("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo"),
        ("touch /root/x && chown 1000:1000 /root/x && stat -c %u:%g /root/x", "1000:1000"),
        ("su -s /bin/sh nobody -c 'id -u'", "65534"),
    ] {
        let said = user.pinfold(&["exec", "-c", "w", "--", line]).ok();
        assert_eq!(said.trim_end(), wanted, "{line}");
    }
}

#[test]
fn every_attempt_to_break_out_is_stopped() {
    let Some(user) = usable() else { return };
    let output = user.pinfold(&["doctor", "--attack", "--json"]);
    let lines: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    let lines = lines.as_array().expect("a list of attempts");
    let with = |verdict: &str| -> Vec<_> {
        lines.iter().filter(|line| line["verdict"] == verdict).collect()
    };
    let unlimited: Vec<_> =
        with("absent").iter().map(|line| line["id"].as_str().unwrap_or_default()).collect();
    assert_eq!((with("broken"), with("unclear")), (Vec::new(), Vec::new()));
    assert_eq!(output.code, 0);
    assert!(with("held").len() >= 190, "only {} held", with("held").len());
    // Against the limits that this mode does not have, and no others.
    assert_eq!(unlimited.len(), 10, "{unlimited:?}");
    assert!(unlimited.iter().all(|id| id.starts_with("use-")), "{unlimited:?}");
    println!("{} held, {} without a limit", with("held").len(), unlimited.len());
}

#[test]
fn a_user_without_sub_ids_is_told_what_to_do() {
    let user = User::new();
    for file in ["subuid", "subgid"] {
        std::fs::write(user.home().with_file_name(file), "").expect("a file of the test's");
    }
    for words in [&["doctor"][..], &["run", "--", "true"]] {
        let refused = user.pinfold(words);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("usermod --add-subuids"), "{words:?}: {said}");
        assert!(said.contains(&user.name()), "{words:?}: {said}");
    }
    assert_ne!(user.pinfold(&["run", "--", "true"]).code, 0);
}

/// In a user namespace of its own, whose root takes the right to make further ones away.
#[test]
fn where_the_kernel_denies_user_namespaces_the_doctor_says_so() {
    let user = User::new();
    // Ids are mapped as they are, so that the user is itself there; not before the shell is ready,
    // which gives up everything when its two ids differ as it begins.
    let script = "echo ready; read -r mapped; setpriv --reuid 0 --regid 0 --clear-groups sh -c \
                  'echo 0 > /proc/sys/user/max_user_namespaces; \"$@\"; echo $? >&2' sh \"$@\"";
    let denied = |words: &[&str]| {
        let inner = user.command(user.program());
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--keep-caps", "--", "sh", "-c", script, "sh"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .args(words)
            .current_dir(user.home())
            .env_clear()
            .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("unshare");
        let pid = child.id();
        let mut ready = [0; b"ready\n".len()];
        let stdout = child.stdout.as_mut().expect("its output");
        stdout.read_exact(&mut ready).expect("a shell in its namespace");
        for file in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{file}"), "0 0 4000000000\n").expect("a map");
        }
        drop(child.stdin.take().map(|mut stdin| stdin.write_all(b"mapped\n")));
        Output::from(child.wait_with_output().expect("our child"))
    };
    let report = denied(&["doctor", "--json"]);
    assert!(report.stdout.contains("user.max_"), "{report:?}");
    let refused = denied(&["run", "--", "true"]);
    assert!(refused.stderr.trim_end().ends_with("125"), "{refused:?}");
    assert!(refused.stderr.contains("user namespaces"), "{refused:?}");
}
