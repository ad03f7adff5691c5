//! A backup made while the server works, and everything found again on an empty home.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use testkit::{Home, Output, Server, ServerOptions};

fn inside(server: &Server, workspace: &str, script: &str) -> Output {
    server.pinfold(&["exec", "--no-stdin", workspace, "--", "sh", "-c", script])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// `pinfold` for a home that no server serves.
fn offline(server: &Server, home: &Path, words: &[&str]) -> Output {
    let mut command = server.command();
    command.env("PINFOLD_HOME", home).args(words).stdin(std::process::Stdio::null());
    command.output().expect("pinfold").into()
}

fn state(server: &Server, workspace: &str) -> String {
    let info = server.pinfold(&["--json", "info", workspace]).json();
    let info = info.get(0).unwrap_or(&info);
    info["state"].as_str().expect("a state").to_owned()
}

fn everything_is_found_again(pool: &str) {
    let config = format!("[pool]\nkind = \"{pool}\"\n");
    let server = Server::with(ServerOptions { config, ..ServerOptions::default() });
    server.pinfold(&["create", "running"]).ok();
    server.pinfold(&["create", "stopped"]).ok();
    inside(
        &server,
        "running",
        "echo first > /root/kept; ln -s kept /root/link; truncate -s 64M /root/holes; \
         rm -f /etc/motd /etc/hostname.x; mkdir -p /root/.wh.odd; : > /root/log",
    )
    .ok();
    server.pinfold(&["snapshot", "create", "running", "early"]).ok();
    inside(&server, "running", "echo second > /root/kept; chmod 4711 /root/kept").ok();
    inside(&server, "stopped", "echo asleep > /root/kept; rm -rf /usr/share/doc").ok();
    server.pinfold(&["stop", "stopped"]).ok();
    server.pinfold(&["fork", "stopped", "--name", "child"]).ok();
    server.pinfold(&["stop", "child"]).ok();

    let file = server.home().beside("backup.pfb");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut rounds = 0_u64;
            while !done.load(Ordering::Relaxed) || rounds == 0 {
                inside(&server, "running", "echo x >> /root/log; sync").ok();
                rounds += 1;
            }
            rounds
        });
        let made = server.pinfold(&["--json", "backup", "create", text(&file)]);
        done.store(true, Ordering::Relaxed);
        let made = made.json();
        assert_eq!(made["bytes"].as_u64(), Some(file.metadata().expect("a file").len()));
        assert!(load.join().expect("the load went on") > 0);
    });
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o7777, 0o600);
    assert_eq!(server.pinfold(&["backup", "create", text(&file)]).code, 5, "never over another");
    let key = server.home().path().join("keys/backup.key");
    let checked = server.pinfold(&["--json", "backup", "verify", text(&file)]).json();
    assert_eq!(checked["contents"]["disks"], 3, "{checked}");
    assert_eq!(checked["contents"]["snapshots"], 1, "{checked}");
    let sealed = fs::read(&file).expect("the backup");
    assert!(!sealed.windows(6).any(|window| window == b"asleep"), "it can be read without a key");

    refused_and_nothing_left(&server, &file, &key);

    // Onto an empty home, beside the first, whose workspaces must not notice.
    let second = Home::new();
    let restored = offline(
        &server,
        second.path(),
        &["--json", "backup", "restore", text(&file), "--key-file", text(&key)],
    )
    .json();
    assert_eq!(restored["dropped"], serde_json::json!([]), "{restored}");
    assert_eq!(second.path().metadata().expect("a home").permissions().mode() & 0o7777, 0o700);
    let again = offline(
        &server,
        second.path(),
        &["backup", "restore", text(&file), "--key-file", text(&key)],
    );
    assert_eq!(again.code, 5, "a home that is not empty: {}", again.stderr);
    let other = Server::on(second, ServerOptions::default());
    for name in ["running", "stopped", "child"] {
        assert_eq!(state(&other, name), "stopped", "{name}");
    }
    assert_eq!(state(&server, "running"), "running", "the first home goes on");
    inside(&server, "running", "true").ok();
    for name in ["running", "stopped", "child"] {
        other.pinfold(&["start", name]).ok();
    }
    let script = "cat /root/kept; stat -c %a /root/kept; readlink /root/link; \
                  stat -c %s /root/holes; du -k /root/holes | cut -f1; ls -d /root/.wh.odd; \
                  test ! -e /etc/motd && echo no motd; wc -l < /root/log";
    let said = inside(&other, "running", script).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..7],
        ["second", "4711", "kept", "67108864", "0", "/root/.wh.odd", "no motd"],
        "{said}"
    );
    for name in ["stopped", "child"] {
        let script = "cat /root/kept; test ! -e /usr/share/doc && echo no docs";
        assert_eq!(inside(&other, name, script).ok(), "asleep\nno docs\n", "{name}");
    }
    other.pinfold(&["fork", "running:early", "--name", "from-early"]).ok();
    assert_eq!(inside(&other, "from-early", "cat /root/kept").ok(), "first\n");
    other.pinfold(&["snapshot", "restore", "running", "early"]).ok();
    assert_eq!(inside(&other, "running", "cat /root/kept").ok(), "first\n");
    other.stop();
    server.stop();
}

/// A wrong key, a damaged file and a cut-off one are told apart, and leave nothing.
fn refused_and_nothing_left(server: &Server, file: &Path, key: &Path) {
    let empty = server.home().beside("never");
    let wrong = server.home().beside("wrong.key");
    fs::write(&wrong, "ab".repeat(32)).expect("a key");
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).expect("chmod");
    let whole = fs::read(file).expect("the backup");
    let (cut, changed) = (server.home().beside("cut.pfb"), server.home().beside("changed.pfb"));
    fs::write(&cut, &whole[..whole.len() * 2 / 3]).expect("a file");
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, bytes).expect("a file");
    for (file, key, code, words) in [
        (file, wrong.as_path(), 4, "does not open"),
        (cut.as_path(), key, 2, "cut off"),
        (changed.as_path(), key, 2, "damaged"),
    ] {
        let before = fs::read_dir(empty.parent().expect("a directory")).expect("a list").count();
        let refused =
            offline(server, &empty, &["backup", "restore", text(file), "--key-file", text(key)]);
        assert_eq!(refused.code, code, "{words}: {}", refused.stderr);
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
        let after = fs::read_dir(empty.parent().expect("a directory")).expect("a list").count();
        assert_eq!((before, empty.exists()), (after, false), "{words}: something is left");
        let checked = server.pinfold(&["backup", "verify", text(file), "--key-file", text(key)]);
        assert_eq!(checked.code, code, "{}", checked.stderr);
    }
}

#[test]
fn directories_are_found_again() {
    everything_is_found_again("plain");
}

#[test]
fn the_best_pool_of_this_machine_is_found_again() {
    everything_is_found_again("auto");
}

#[test]
fn a_passphrase_seals_anew_and_a_pipe_is_enough() {
    let server = Server::start();
    server.pinfold(&["create", "one", "--stopped"]).ok();
    let phrase = server.home().beside("phrase");
    fs::write(&phrase, "correct horse battery staple\n").expect("a file");
    let loose = server.pinfold(&["backup", "create", "-", "--passphrase-file", text(&phrase)]);
    assert_eq!(loose.code, 2, "others can read it: {}", loose.stderr);
    fs::set_permissions(&phrase, fs::Permissions::from_mode(0o600)).expect("chmod");
    let mut command = server.command();
    let words = ["backup", "create", "-", "--without-images", "--passphrase-file", text(&phrase)];
    let made = command.args(words).output().expect("pinfold");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let words = ["--json", "backup", "verify", "-", "--passphrase-file", text(&phrase)];
    let checked = server.pinfold_with_input(&words, &made.stdout).json();
    assert_eq!(checked["contents"]["disks"], 1);
    assert_eq!(checked["manifest"]["without_images"], true);
    server.stop();
}
