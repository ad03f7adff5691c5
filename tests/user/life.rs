//! From create to destroy, with the server killed in between.

use std::{fs, time::Duration};

use serde_json::Value;
use testkit::{User, until};

use crate::usable;

const SOON: Duration = Duration::from_secs(20);

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it runs");
}

/// State of a process, one letter (proc(5)).
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// States of all processes in workspaces but the first of each: the server keeps a workspace
/// ready for the next who asks, which is in no list.
fn states(user: &User) -> String {
    let first = |pid: &i32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.starts_with("pinfold-guest")
    };
    user.processes().1.into_iter().filter(|pid| !first(pid)).filter_map(state).collect()
}

fn guest_state(user: &User, workspace: &str) -> Option<char> {
    let pid = user.pinfold(&["info", workspace, "--json"]).json()["pid"].as_i64()?;
    state(i32::try_from(pid).ok()?)
}

fn exec(user: &User, workspace: &str, line: &str) -> String {
    user.pinfold(&["exec", "-c", workspace, "--", line]).ok()
}

#[test]
fn a_workspace_lives_as_it_does_for_root() {
    let Some(user) = usable() else { return };
    assert_eq!(user.pinfold(&["run", "--", "sh", "-c", "exit 7"]).code, 7);
    user.pinfold(&["create", "w"]).ok();
    terminal(&user);
    copies(&user);
    snapshots(&user);
    pause(&user);
    exec(&user, "w", "echo kept > /root/kept");
    user.pinfold(&["stop", "w"]).ok();
    assert_eq!(text(&user.pinfold(&["info", "w", "--json"]).json(), "state"), "stopped");
    user.pinfold(&["start", "w"]).ok();
    assert_eq!(exec(&user, "w", "cat /root/kept"), "kept\n");
    sealed(&user);
    let id = text(&user.pinfold(&["info", "w", "--json"]).json(), "id");
    let disk = user.home().join(".local/share/pinfold/pool/disks").join(id);
    assert!(disk.is_dir());
    user.pinfold(&["rm", "--force", "w", "child-1", "child-2"]).ok();
    until("all processes to be gone", SOON, || states(&user).is_empty().then_some(()));
    until("its disk to be gone", SOON, || (!disk.exists()).then_some(()));
}

/// A terminal of its own size, from a terminal on this side.
fn terminal(user: &User) {
    let line = format!(
        "stty rows 33 cols 77; {} exec -t w -- sh -c 'tty; stty size; exit 5'",
        user.program().display()
    );
    let mut command = user.command("script");
    let output = user.run(command.args(["--quiet", "--return", "--command", &line, "/dev/null"]));
    assert_eq!(output.code, 5, "{output:?}");
    // The terminal shows the end of its own input first.
    let said = output.stdout.replace('\r', "");
    assert!(said.ends_with("/dev/pts/0\n33 77\n"), "{output:?}");
}

fn copies(user: &User) {
    let tree = user.home().join("tree");
    fs::create_dir_all(tree.join("deep")).expect("a directory");
    fs::write(tree.join("deep/file"), "content").expect("a file");
    for path in [tree.join("deep/file"), tree.join("deep"), tree.clone()] {
        user.give(&path);
    }
    user.pinfold(&["cp", "tree", "w:/srv/"]).ok();
    assert_eq!(exec(user, "w", "cat /srv/tree/deep/file; stat -c %u /srv/tree"), "content0\n");
    exec(user, "w", "chmod 600 /srv/tree/deep/file; chown 33:33 /srv/tree/deep/file");
    user.pinfold(&["cp", "w:/srv/tree", "back"]).ok();
    let back = user.home().join("back/deep/file");
    assert_eq!(fs::read_to_string(&back).expect("it came back"), "content");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&back).expect("it is there"));
    assert_eq!(owner, user.uid(), "what comes out is the user's");
}

/// Of a workspace that writes all the time: two files that are always equal stay so in a copy.
fn snapshots(user: &User) {
    let writer = "i=0; while :; do i=$((i+1)); echo $i > /root/a; echo $i > /root/b; done";
    user.pinfold(&["exec", "-b", "-c", "w", "--", writer]).ok();
    until("the writer", SOON, || (!exec(user, "w", "cat /root/b").is_empty()).then_some(()));
    user.pinfold(&["snapshot", "create", "w", "s"]).ok();
    let made = user.pinfold(&["fork", "w", "--count", "2", "--name", "child", "--json"]).json();
    assert_eq!(made.as_array().map(Vec::len), Some(2), "{made}");
    for child in ["child-1", "child-2"] {
        let pair = exec(user, child, "cat /root/a /root/b");
        let numbers: Vec<u64> = pair.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        // Between the two writes, or in one of them, which has emptied its file.
        match numbers.as_slice() {
            [a, b] => assert!(a - b <= 1, "{child}: {pair:?}"),
            _ => assert!(numbers.len() == 1, "{child}: {pair:?}"),
        }
    }
    // The shell was never told that it had been stopped.
    let before: u64 = loop_number(user);
    until("the writer to go on", SOON, || (loop_number(user) > before).then_some(()));
    exec(user, "w", "touch /root/after");
    user.pinfold(&["snapshot", "restore", "w", "s"]).ok();
    assert_eq!(exec(user, "w", "ls /root/after 2>/dev/null; echo done"), "done\n");
    assert!(!exec(user, "w", "cat /root/a /root/b").is_empty());
}

/// Of a workspace that is stopped nothing is copied; children see their own changes, and what they
/// share is gone with the last of them.
fn sealed(user: &User) {
    let layers = || fs::read_dir(user.home().join(".local/share/pinfold/pool/layers"));
    let count = || layers().expect("a pool").count();
    user.pinfold(&["create", "source"]).ok();
    let fill = "mkdir -p /srv/d && echo one > /srv/f && echo two > /srv/d/g && chown -R 33:33 /srv/d \
                && chmod 700 /srv/d && chmod 711 /";
    exec(user, "source", fill);
    user.pinfold(&["stop", "source"]).ok();
    let before = count();
    let made = user.pinfold(&["snapshot", "create", "source", "still", "--json"]).json();
    assert_eq!(text(&made, "method"), "sealed layer", "{made}");
    assert_eq!(count(), before + 1);
    user.pinfold(&["fork", "source", "--name", "direct"]).ok();
    user.pinfold(&["fork", &text(&made, "id"), "--name", "other"]).ok();
    user.pinfold(&["start", "source"]).ok();
    let look = "cat /srv/f /srv/d/g; stat -c %a:%u / /srv/d";
    let whole = "one\ntwo\n711:0\n700:33\n";
    for workspace in ["source", "direct", "other"] {
        assert_eq!(exec(user, workspace, look), whole, "{workspace}");
    }
    assert_eq!(count(), before + 1, "nothing was new");
    exec(user, "other", "rm -r /srv/d /srv/f; mkdir /srv/d; echo new > /srv/d/n");
    assert_eq!(exec(user, "other", "ls /srv /srv/d"), "/srv:\nd\n\n/srv/d:\nn\n");
    assert_eq!(exec(user, "direct", look), whole);
    exec(user, "source", "rm -r /srv/d; echo changed > /srv/f");
    user.pinfold(&["snapshot", "restore", "source", "still"]).ok();
    assert_eq!(exec(user, "source", look), whole);
    user.pinfold(&["rm", "--force", "source", "other"]).ok();
    user.pinfold(&["snapshot", "rm", &text(&made, "id")]).ok();
    assert_eq!(exec(user, "direct", look), whole, "what stands on the layer keeps it");
    user.pinfold(&["rm", "--force", "direct"]).ok();
    until("the layer to be gone", SOON, || (count() == before).then_some(()));
}

fn loop_number(user: &User) -> u64 {
    until("a number", SOON, || exec(user, "w", "cat /root/a").trim().parse().ok())
}

fn pause(user: &User) {
    let counter = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done";
    user.pinfold(&["exec", "-b", "-c", "w", "--", counter]).ok();
    user.pinfold(&["exec", "-b", "-c", "w", "--", "sleep 600 & kill -STOP $!; wait"]).ok();
    until("the stopped one", SOON, || states(user).contains('T').then_some(()));
    let others = user.pinfold(&["pause", "child-1", "child-2"]);
    assert_eq!(others.code, 0, "{others:?}");
    user.pinfold(&["pause", "w"]).ok();
    let states = states(user);
    assert!(states.len() >= 3 && states.chars().all(|state| state == 'T'), "{states}");
    assert_eq!(guest_state(user, "w"), Some('T'));
    user.pinfold(&["resume", "w"]).ok();
    let count = || exec(user, "w", "cat /tmp/count").trim().parse::<u64>().ok();
    let before = until("a count", SOON, count);
    until("the counter to go on", SOON, || (count()? > before).then_some(()));
    let stopped = "grep -l 'State:.T' /proc/[0-9]*/status | wc -l";
    assert_eq!(exec(user, "w", stopped), "1\n", "what was stopped inside stays so");
    user.pinfold(&["resume", "child-1", "child-2"]).ok();
}

#[test]
fn workspaces_outlive_a_killed_server() {
    let Some(user) = usable() else { return };
    for name in ["runs", "paused"] {
        user.pinfold(&["create", name]).ok();
        user.pinfold(&["exec", "-b", "-c", name, "--", "sleep 600"]).ok();
    }
    user.pinfold(&["pause", "paused"]).ok();
    let first = user.pinfold(&["info", "runs", "--json"]).json()["pid"].clone();
    kill(user.server().expect("a server"), rustix::process::Signal::KILL);
    until("the server's end", SOON, || user.server().is_none().then_some(()));

    let found = user.pinfold(&["info", "runs", "--json"]).json();
    assert_eq!((&found["pid"], text(&found, "state").as_str()), (&first, "running"));
    assert_eq!(exec(&user, "runs", "pgrep -c sleep"), "1\n", "its command goes on");
    let paused = user.pinfold(&["info", "paused", "--json"]).json();
    assert_eq!(text(&paused, "state"), "paused");
    user.pinfold(&["resume", "paused"]).ok();
    assert_eq!(exec(&user, "paused", "pgrep -c sleep"), "1\n");
    assert!(!states(&user).contains('T'), "{}", states(&user));
    assert_eq!(guest_state(&user, "paused"), Some('S'));

    user.pinfold(&["rm", "--force", "runs", "paused"]).ok();
    kill(user.server().expect("a server"), rustix::process::Signal::TERM);
    until("everything to end", SOON, || {
        let (own, inside) = user.processes();
        (own.is_empty() && inside.is_empty()).then_some(())
    });
}

/// A server that dies while it makes workspaces leaves processes that no record names.
#[test]
fn what_a_killed_server_was_making_is_ended() {
    let Some(user) = usable() else { return };
    for _ in 0..6 {
        let mut making: Vec<_> = (0..4)
            .map(|_| {
                let mut command = user.command(user.program());
                command.args(["create", "-q"]).stderr(std::process::Stdio::null());
                command.stdout(std::process::Stdio::null()).spawn().expect("pinfold")
            })
            .collect();
        let before = user.processes().1.len();
        until("a new process", SOON, || {
            let ended = making.iter_mut().all(|child| child.try_wait().is_ok_and(|s| s.is_some()));
            (user.processes().1.len() > before || ended).then_some(())
        });
        if let Some(server) = user.server() {
            kill(server, rustix::process::Signal::KILL);
        }
        for mut child in making {
            let _ = child.wait();
        }
    }
    let all = user.pinfold(&["ls", "--json"]).json();
    for item in all["items"].as_array().expect("a list") {
        user.pinfold(&["rm", "--force", &text(item, "id")]).ok();
    }
    kill(user.server().expect("a server"), rustix::process::Signal::TERM);
    until("nothing to be left", SOON, || user.processes().1.is_empty().then_some(()));
}
