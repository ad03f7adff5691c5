//! The server that a command starts by itself.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use testkit::Home;

use crate::program::{pinfold, run};

fn server_pid(home: &Home) -> Pid {
    let text = fs::read_to_string(home.path().join("server.lock")).expect("a server ran");
    let pid = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Pid::from_raw(pid.expect("a pid")).expect("not zero")
}

fn gone(pid: Pid) {
    testkit::until("the server to leave", Duration::from_secs(30), || {
        test_kill_process(pid).is_err().then_some(())
    });
}

fn end(home: &Home) {
    let pid = server_pid(home);
    let _ended = kill_process(pid, Signal::TERM);
    gone(pid);
}

#[test]
fn commands_at_the_same_time_start_one_server() {
    let home = Home::new();
    let children: Vec<_> = (0..8)
        .map(|_| {
            pinfold(home.path())
                .args(["version", "--json"])
                .env("PINFOLD_TEST", "1")
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("it starts")
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().expect("it ends").status.success());
    }
    // `version` starts none; `ls` does.
    assert!(!home.path().join("server.sock").exists());
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = pinfold(home.path());
            command.args(["ls", "--json"]).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped()).spawn().expect("it starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let log = fs::read_to_string(home.path().join("server.log")).expect("a log");
    assert_eq!(log.matches("listening").count(), 1, "{log}");
    let first = server_pid(&home);
    run(home.path(), &["ls"]).ok();
    assert_eq!(server_pid(&home), first);
    // It is alone in a session of its own, so that no terminal's end is its end.
    let session = rustix::process::getsid(Some(first)).expect("it runs");
    assert_eq!(session, first);
    end(&home);
    assert!(!home.path().join("server.sock").exists());
}

#[test]
fn it_leaves_when_idle_and_workspaces_stay() {
    let home = Home::new();
    home.write_config("[server]\nidle_exit_ms = 300\n");
    run(home.path(), &["create", "stays"]).ok();
    let first = server_pid(&home);
    gone(first);
    let info = run(home.path(), &["info", "stays", "--json"]).json();
    assert_eq!((&info["state"], &info["boot"]), (&"running".into(), &1.into()));
    assert_ne!(server_pid(&home), first);
    run(home.path(), &["rm", "stays"]).ok();
    gone(server_pid(&home));
}

#[test]
fn one_started_by_hand_takes_its_place_and_refuses_a_second() {
    let home = Home::new();
    run(home.path(), &["ls"]).ok();
    let on_demand = server_pid(&home);
    let mut by_hand =
        pinfold(home.path()).args(["up", "--listen", "none"]).spawn().expect("it starts");
    gone(on_demand);
    testkit::until("the new server", Duration::from_secs(30), || {
        (run(home.path(), &["version", "--json"]).json()["server"]["pid"] == by_hand.id())
            .then_some(())
    });
    let second = run(home.path(), &["up", "--listen", "none"]);
    assert_eq!(second.code, 5, "{second:?}");
    assert!(second.err.contains(&by_hand.id().to_string()), "{second:?}");
    kill_process(server_pid(&home), Signal::TERM).expect("our server");
    assert_eq!(by_hand.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_socket_left_by_a_crash_is_replaced() {
    let home = Home::new();
    run(home.path(), &["ls"]).ok();
    let pid = server_pid(&home);
    kill_process(pid, Signal::KILL).expect("our server");
    gone(pid);
    assert!(home.path().join("server.sock").exists(), "nothing was left to test with");
    run(home.path(), &["ls"]).ok();
    assert_ne!(server_pid(&home), pid);
    end(&home);
}

#[test]
fn down_leaves_no_process_and_no_mount() {
    let home = Home::new();
    let said = run(home.path(), &["down"]).ok();
    assert_eq!(said, "no server runs\n");
    assert!(!home.path().join("server.lock").exists(), "asking made something");

    run(home.path(), &["create", "stays"]).ok();
    let first = server_pid(&home);
    let mounts = home.leftovers().mounts;
    let refused = run(home.path(), &["down", "--unmount"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.err.contains("stays"), "{refused:?}");
    assert!(test_kill_process(first).is_ok(), "a refusal ended the server");

    let said = run(home.path(), &["down"]).ok();
    assert!(said.contains(&first.as_raw_nonzero().to_string()), "{said}");
    // Its parent has ended before it; until somebody reaps it, its id stays taken.
    let stat = fs::read_to_string(format!("/proc/{}/stat", first.as_raw_nonzero()));
    let stat = stat.unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "down did not wait: {stat}");
    // The workspace outlives the server, and the next one adopts it.
    let info = run(home.path(), &["info", "stays", "--json"]).json();
    assert_eq!((&info["state"], &info["boot"]), (&"running".into(), &1.into()));

    run(home.path(), &["down"]).ok();
    // Asking what runs starts a server, which is to be gone again.
    assert_eq!(run(home.path(), &["down", "--unmount"]).code, 5);
    run(home.path(), &["stop", "stays"]).ok();
    let said = run(home.path(), &["down", "--unmount", "--json"]).json();
    assert!(said["ended"].is_i64(), "{said}");
    assert_eq!(said["unmounted"].is_string(), !mounts.is_empty(), "{said}");
    let left = home.leftovers();
    assert!(left.processes.is_empty(), "{left:?}");
    assert!(left.mounts.is_empty() && left.loops.is_empty(), "{left:?}");
    assert_eq!(run(home.path(), &["down", "--unmount"]).code, 0);
    // Nothing was lost by it.
    let info = run(home.path(), &["info", "stays", "--json"]).json();
    assert_eq!(info["state"], "stopped");
}

#[test]
fn a_lock_that_names_somebody_else_ends_nobody() {
    let home = Home::new();
    let lock = home.path().join("server.lock");
    let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("it starts");
    fs::write(&lock, format!("{} on-demand\n", other.id())).expect("our own file");
    fs::set_permissions(&lock, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("our own file");
    assert_eq!(run(home.path(), &["down"]).ok(), "no server runs\n");
    // Held, but not by the process it names.
    let held = fs::File::options().read(true).write(true).open(&lock).expect("our own file");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("it is free");
    let said = run(home.path(), &["down"]);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(other.try_wait().expect("our child").is_none(), "it was ended");
    other.kill().and_then(|()| other.wait()).expect("our child");
}
