//! Commands end to end.

use testkit::{Home, Server};

use crate::program::{pinfold, run, run_with};

#[test]
fn help_version_and_completions_need_no_server() {
    let home = Home::new();
    let help = run(home.path(), &["--help"]).ok();
    assert!(help.contains("Exit codes") && help.contains("snapshot"), "{help}");
    for words in [&["run", "--help"][..], &["image", "build", "--help"], &["-h"], &["help", "run"]]
    {
        assert!(run(home.path(), words).ok().contains("Usage"), "{words:?}");
    }
    let version = run(home.path(), &["version"]).ok();
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains("not running"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(home.path(), &["completions", shell]).ok().contains("pinfold"), "{shell}");
    }
    let pages = home.beside("man");
    run(home.path(), &["man", pages.to_str().expect("text")]).ok();
    assert!(pages.join("pinfold-run.1").is_file());
    let shown = run(home.path(), &["config", "show"]).ok();
    assert!(shown.contains("default_image = \"host\""), "{shown}");
    assert!(run(home.path(), &["__names", "workspaces"]).code != 0, "no server, no names");
    assert!(std::fs::read_dir(home.path()).expect("the home").next().is_none());
}

#[test]
fn a_workspace_lives_from_create_to_rm() {
    let server = Server::start();
    let home = server.home().path();
    let pinfold = |words: &[&str]| run(home, words);

    assert_eq!(
        pinfold(&["create", "web", "--label", "team=a", "--memory", "256MiB"]).ok(),
        "web\n"
    );
    assert_eq!(pinfold(&["ls", "-q"]).ok(), "web\n");
    let list = pinfold(&["ls"]).ok();
    assert!(list.starts_with("NAME") && list.contains("running") && list.contains("256 MiB"));
    let info = pinfold(&["info", "web", "--json"]).json();
    assert_eq!((&info["name"], &info["state"]), (&"web".into(), &"running".into()));
    let text = pinfold(&["info", "web"]).ok();
    assert!(text.contains("team=a") && text.contains("limits"), "{text}");

    pinfold(&["pause", "web"]).ok();
    assert_eq!(pinfold(&["info", "web", "--json"]).json()["state"], "paused");
    pinfold(&["resume", "web"]).ok();
    pinfold(&["set", "web", "--memory", "512MiB", "--ttl", "2h"]).ok();
    let info = pinfold(&["info", "web", "--json"]).json();
    assert!(info["expires_at"].is_string());
    let memory = info["limits"].as_array().expect("limits").iter().find(|l| l["kind"] == "memory");
    assert_eq!(memory.expect("a limit")["value"], 512 << 20);
    pinfold(&["rename", "web", "app"]).ok();
    assert_eq!(pinfold(&["info", "web"]).code, 3);

    pinfold(&["exec", "app", "--", "sh", "-c", "echo kept > /root/file"]).ok();
    pinfold(&["snapshot", "create", "app", "before"]).ok();
    pinfold(&["exec", "app", "--", "rm", "/root/file"]).ok();
    pinfold(&["stop", "app"]).ok();
    assert_eq!(pinfold(&["info", "app", "--json"]).json()["state"], "stopped");
    pinfold(&["snapshot", "restore", "app", "before"]).ok();
    // A restored workspace may have been started again already.
    pinfold(&["start", "app"]);
    assert_eq!(pinfold(&["exec", "app", "--", "cat", "/root/file"]).ok(), "kept\n");
    assert!(pinfold(&["snapshot", "ls", "app"]).ok().contains("before"));

    let forks = pinfold(&["fork", "app", "--count", "3", "--name", "child"]).ok();
    for child in ["child-1", "child-2", "child-3"] {
        assert!(forks.contains(child), "{forks}");
        assert_eq!(pinfold(&["exec", child, "--", "cat", "/root/file"]).ok(), "kept\n");
    }
    assert_eq!(pinfold(&["fork", "app:before", "--name", "old"]).ok(), "old\n");
    let partly = pinfold(&["fork", "app", "--count", "2", "--name", "child"]);
    assert_eq!(partly.code, 5, "{partly:?}");
    assert!(partly.err.contains("child-1"), "{partly:?}");

    let stats = pinfold(&["stats", "app"]).ok();
    assert!(stats.starts_with("NAME") && stats.contains("app"), "{stats}");
    assert!(pinfold(&["logs", "app"]).ok().contains("workspace."));
    assert!(pinfold(&["doctor"]).out.contains("limits"));
    assert!(pinfold(&["image", "ls"]).ok().contains("host"));
    // A snapshot outlives its workspace, under that workspace's name.
    pinfold(&["rm", "app"]).ok();
    assert!(pinfold(&["snapshot", "ls"]).ok().contains("app (removed)"));
    assert!(pinfold(&["snapshot", "ls", "app"]).ok().contains("before"));
    assert_eq!(pinfold(&["fork", "app:before", "--name", "again"]).ok(), "again\n");
    assert_eq!(pinfold(&["exec", "again", "--", "cat", "/root/file"]).ok(), "kept\n");
    assert_eq!(pinfold(&["snapshot", "rm", "app:before"]).code, 0);
    assert_eq!(pinfold(&["snapshot", "ls", "app"]).code, 3);
    pinfold(&["snapshot", "create", "again", "gone"]).ok();
    pinfold(&["rm", "--snapshots", "again"]).ok();
    assert_eq!(pinfold(&["snapshot", "ls", "--json"]).json()["items"], serde_json::json!([]));
    pinfold(&["rm", "--all"]).ok();
    assert_eq!(pinfold(&["ls", "--json"]).json()["items"], serde_json::json!([]));
    server.stop();
}

#[test]
fn run_passes_streams_and_codes_through_and_leaves_nothing() {
    let server = Server::start();
    let home = server.home().path();
    let said = run(home, &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
    let said = run(
        home,
        &["run", "--env", "A=b c", "--workdir", "/tmp", "--", "sh", "-c", "echo $A; pwd"],
    );
    assert_eq!(said.ok(), "b c\n/tmp\n");
    assert_eq!(run(home, &["run", "--", "sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(run(home, &["run", "--", "/nowhere"]).code, 127);
    assert_eq!(run(home, &["run", "--", "/etc"]).code, 126);
    let slow = run(home, &["run", "--timeout", "300ms", "--", "sleep", "60"]);
    assert_eq!(slow.code, 124, "{slow:?}");
    assert!(slow.err.contains("time limit"), "{slow:?}");
    // Words with hyphens belong to the command.
    assert_eq!(run(home, &["run", "echo", "-n", "--memory"]).ok(), "--memory");
    let echoed = run_with(home, &["run", "--", "cat"], b"over standard input");
    assert_eq!(echoed.ok(), "over standard input");
    assert_eq!(run(home, &["ls", "--json"]).json()["items"], serde_json::json!([]));
    server.stop();
}

#[test]
fn background_commands_are_listed_attached_and_killed() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "bg"]).ok();
    let script = "echo begun; trap 'echo got it; exit 5' TERM; while :; do sleep 0.1; done";
    let id = run(home, &["exec", "bg", "--background", "--", "sh", "-c", script]).ok();
    let id = id.trim();
    assert!(id.starts_with("exec_"), "{id}");
    let listed = run(home, &["ps", "bg"]).ok();
    assert!(listed.contains(id) && listed.contains("background"), "{listed}");
    let attached = std::thread::scope(|scope| {
        let attached = scope.spawn(|| run(home, &["attach", "bg", id]));
        // What it has said is replayed, so the order of these two does not matter.
        run(home, &["kill", "bg", id]).ok();
        attached.join().expect("attach ends")
    });
    assert_eq!((attached.code, attached.out.as_str()), (5, "begun\ngot it\n"), "{attached:?}");
    assert_eq!(run(home, &["kill", "bg", id, "--signal", "KILL"]).code, 5);
    server.stop();
}

#[test]
fn a_full_device_is_an_error_that_names_the_stream() {
    let server = Server::start();
    let home = server.home().path();
    let full = |words: &[&str]| {
        let device = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let said = pinfold(home).args(words).stdout(device).output().expect("it starts");
        (said.status.code(), String::from_utf8_lossy(&said.stderr).into_owned())
    };
    // `run` leaves 1 to the command inside.
    for (words, code) in [(&["ls"][..], 1), (&["run", "--", "echo", "x"], 125)] {
        let (left, said) = full(words);
        assert_eq!(left, Some(code), "{words:?}: {said}");
        assert!(said.contains("standard output cannot be written"), "{words:?}: {said}");
    }
}

#[test]
fn what_a_stopped_workspace_is_asked_gets_plain_answers() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "still", "--stopped"]).ok();
    let again = run(home, &["stop", "still"]);
    assert_eq!(again.code, 5, "{again:?}");
    assert!(again.err.contains("stopped already") && !again.err.contains("start it"), "{again:?}");
    let stats = run(home, &["stats", "still"]).ok();
    assert!(stats.lines().nth(1).is_some_and(|line| line.trim_end().ends_with('-')), "{stats}");
    run(home, &["create", "other", "--stopped"]).ok();
    let made = run(home, &["snapshot", "create", "other", "kept", "--json"]).json();
    let id = made["id"].as_str().expect("an id");
    let refused = run(home, &["snapshot", "restore", "still", id]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(
        refused.err.contains("another workspace") && refused.err.contains("pinfold fork snap_"),
        "{refused:?}"
    );
}
