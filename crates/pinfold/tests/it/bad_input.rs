//! What is wrong gets an error that names it, the documented exit code, and changes nothing.

use std::{fs, os::unix::fs::PermissionsExt};

use testkit::{Home, Server};

use crate::program::run;

/// Wrong before any server is asked: none may be started for it.
#[test]
fn wrong_words_are_refused_by_name_and_start_nothing() {
    let home = Home::new();
    let long = "x".repeat(64);
    let table: &[(&[&str], i32, &str)] = &[
        (&[], 2, "Usage"),
        (&["dance"], 2, "dance"),
        (&["ls", "--colour"], 2, "--colour"),
        (&["create", "../etc"], 2, "../etc"),
        (&["create", "-a"], 2, "-a"),
        (&["create", ""], 2, "empty"),
        (&["create", "ws_1"], 2, "starts like an id"),
        (&["create", "snap_x"], 2, "starts like an id"),
        (&["create", &long], 2, "63 bytes"),
        (&["create", "a b"], 2, "a b"),
        (&["create", "a\n"], 2, "character"),
        (&["create", "é"], 2, "letter or digit"),
        (&["create", "a", "--memory", "1XB"], 2, "1XB"),
        (&["create", "a", "--memory", "-1"], 2, "not a size"),
        (&["create", "a", "--memory", "1"], 2, "--memory 1 B is below the least, 16.0 MiB"),
        (&["create", "a", "--memory", "99999999999999999999"], 2, "too large"),
        (&["create", "a", "--cpus", "0"], 2, "--cpus 0.000 CPUs is below"),
        (&["create", "a", "--cpus", "many"], 2, "many"),
        (&["create", "a", "--pids", "1"], 2, "--pids 1 is below"),
        (&["create", "a", "--pids", "x"], 2, "x"),
        (&["create", "a", "--disk", "1KiB"], 2, "--disk 1.00 KiB is below"),
        (&["create", "a", "--ttl", "soon"], 2, "soon"),
        (&["create", "a", "--ttl", "0"], 2, "ttl_ms"),
        (&["create", "a", "--idle", "99999d"], 2, "idle_ms"),
        (&["create", "a", "--image", "UPPER"], 2, "UPPER"),
        (&["create", "a", "--image", "a:b:c"], 2, "a:b:c"),
        (&["create", "a", "--hostname=-x"], 2, "host name"),
        (&["create", "a", "--label", "novalue"], 2, "NAME=VALUE"),
        (&["create", "a", "--env", "1A=x"], 2, "1A"),
        (&["create", "a", "--env", "LD_PRELOAD=x"], 2, "LD_PRELOAD"),
        (&["create", "a", "--env", "UNSET_ANYWHERE"], 2, "UNSET_ANYWHERE"),
        (&["info"], 2, "WORKSPACE"),
        (&["info", "a/b"], 2, "a/b"),
        (&["rm"], 2, "required"),
        (&["rm", "a", "--all"], 2, "--all"),
        (&["set", "a"], 2, "nothing to change"),
        (&["rename", "a", "b c"], 2, "b c"),
        (&["snapshot", "create", "a", "b/c"], 2, "b/c"),
        (&["snapshot", "rm", "plain"], 2, "WORKSPACE:NAME"),
        (&["snapshot", "restore", "a", "b/c"], 2, "b/c"),
        (&["fork", "a", "--count", "0"], 2, "0"),
        (&["fork", "a", "--count", "1001"], 2, "1001"),
        (&["fork", "a", "--count", "-1"], 2, "1..=1000"),
        (&["fork", "a:b:c"], 2, "b:c"),
        (&["cp", "a", "b"], 2, "neither side"),
        (&["cp", "a:/x", "b:/y"], 2, "both sides"),
        (&["cp", "a:x", "."], 2, "start with /"),
        (&["cp", "", "a:/x"], 2, "usable path"),
        (&["ports", "forward", "a", "0"], 2, "65535"),
        (&["ports", "forward", "a", "80:80"], 2, "1024"),
        (&["ports", "forward", "a", "8080", "--address", "0.0.0.0"], 2, "loopback"),
        (&["kill", "a", "exec_x"], 2, "exec_x"),
        (&["kill", "a", "exec_01m80svcy3edz8scegh1jpj4dp", "-s", "65"], 2, "1 to 64"),
        (&["image", "pull", "UPPER"], 2, "UPPER"),
        (&["image", "import", "debian:../x", "a"], 2, "../x"),
        (&["image", "import", "/nowhere", "a"], 2, "/nowhere"),
        (&["image", "build", "a", "/nowhere"], 2, "/nowhere"),
        (&["image", "rm", "a:b:c"], 2, "a:b:c"),
        (&["completions", "tcsh"], 2, "tcsh"),
        // The codes below 125 belong to the command inside.
        (&["run", "--memory", "x", "--", "true"], 125, "x"),
        (&["run", "--timeout", "0", "--", "true"], 125, "timeout_ms"),
        (&["run", "--tty", "--", "true"], 125, "terminal"),
        (&["run", "--user", "a/b", "--", "true"], 125, "a/b"),
        (&["run", "--workdir", "here", "--", "true"], 125, "here"),
        (&["run", "--", ""], 125, "empty"),
        (&["exec", "a b", "--", "true"], 125, "a b"),
        (&["exec", "a"], 125, "CMD"),
        (&["exec", "a", "-c", "x", "y"], 125, "one word"),
        (&["attach", "a", "b"], 125, "exec_"),
    ];
    for (words, code, text) in table {
        let said = run(home.path(), words);
        assert_eq!(said.code, *code, "{words:?}: {said:?}");
        assert!(said.err.contains(text), "{words:?}: {}", said.err);
        assert!(said.out.is_empty(), "{words:?}: {}", said.out);
    }
    let left: Vec<_> = fs::read_dir(home.path()).expect("the home").collect();
    assert!(left.is_empty(), "something was made: {left:?}");
}

#[test]
fn errors_are_problem_documents_with_json() {
    let home = Home::new();
    let said = run(home.path(), &["--json", "set", "a"]);
    assert_eq!(said.code, 2);
    let problem: serde_json::Value = serde_json::from_str(&said.err).expect("one JSON object");
    assert_eq!(problem["code"], "invalid_argument");
    assert_eq!(problem["status"], 400);
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("--memory")));
}

#[test]
fn a_wrong_home_or_configuration_stops_the_start_and_is_named() {
    let deep = format!("/tmp/{}", "x".repeat(80));
    let said = run(std::path::Path::new(&deep), &["ls"]);
    assert_eq!((said.code, said.err.contains("60 bytes")), (2, true), "{said:?}");

    for (config, words) in [
        ("[pool]\nsize = 1\n", "size"),
        ("[workspaces]\nuid_base = 0\n", "uid_base"),
        ("[server]\nlog = \"[[\"\n", "server.log"),
        ("nonsense", "config.toml"),
        ("[workspaces.defaults]\nmemory_bytes = 1\n", "memory_bytes"),
        ("[images.registries.\"r:1\"]\npassword = \"hunter2\"\n", "password"),
    ] {
        let home = Home::new();
        home.write_config(config);
        // Through the server that a command starts, and in the foreground.
        for words_of_call in [&["ls"][..], &["up", "--listen", "none"][..]] {
            let said = run(home.path(), words_of_call);
            assert_eq!(said.code, 2, "{config:?}: {said:?}");
            assert!(said.err.contains(words), "{config:?}: {}", said.err);
            assert!(!said.err.contains("hunter2"));
        }
        assert!(!home.path().join("state.db").exists(), "{config:?} was started");
    }

    let home = Home::new();
    let open = |mode| fs::set_permissions(home.path(), fs::Permissions::from_mode(mode));
    open(0o755).expect("our own directory");
    let said = run(home.path(), &["up", "--listen", "none"]);
    assert!(said.code == 2 && said.err.contains("chmod 700"), "{said:?}");
    open(0o700).expect("our own directory");
    home.write_config("");
    let config = home.path().join("config.toml");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("our own file");
    let said = run(home.path(), &["up", "--listen", "none"]);
    assert!(said.code == 2 && said.err.contains("chmod 600"), "{said:?}");
}

/// Wrong for the server: the answer names it, and nothing has changed.
#[test]
fn what_does_not_exist_or_conflicts_has_its_code() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "one"]).ok();
    let before = run(home, &["ls", "--json"]).ok();
    let table: &[(&[&str], i32, &str)] = &[
        (&["info", "two"], 3, "two"),
        (&["start", "two"], 3, "two"),
        (&["rm", "two"], 3, "two"),
        (&["create", "one"], 5, "one"),
        (&["create", "three", "--image", "nope:1"], 3, "nope:1"),
        (&["start", "one"], 5, "start"),
        (&["resume", "one"], 5, "resume"),
        (&["snapshot", "restore", "one", "none"], 3, "none"),
        (&["snapshot", "rm", "one:none"], 3, "none"),
        (&["fork", "two"], 3, "two"),
        (&["image", "rm", "nope"], 3, "nope"),
        (&["cp", "one:/nowhere", "/tmp/"], 3, "/nowhere"),
        (&["exec", "two", "--", "true"], 125, "two"),
        (&["exec", "one", "--", "/nowhere"], 127, "nowhere"),
        (&["exec", "one", "--", "/etc"], 126, "/etc"),
        (&["exec", "one", "--user", "nobodyhere", "--", "true"], 125, "nobodyhere"),
        (&["exec", "one", "--workdir", "/nowhere", "--", "true"], 125, "/nowhere"),
        (&["run", "--image", "nope:1", "--", "true"], 125, "nope:1"),
    ];
    for (words, code, text) in table {
        let said = run(home, words);
        assert_eq!(said.code, *code, "{words:?}: {said:?}");
        assert!(said.err.contains(text), "{words:?}: {}", said.err);
    }
    assert_eq!(run(home, &["ls", "--json"]).ok(), before, "a refused command changed something");
    assert_eq!(run(home, &["rm", "--force", "two"]).code, 0);
    server.stop();
}
