//! `pinfold cp`, both ways.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use testkit::Server;

use crate::program::{pinfold, run, run_with};

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn trees_go_in_and_come_back_as_they_were() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "box"]).ok();
    let tree = server.home().beside("tree");
    fs::create_dir_all(tree.join("deep/er")).expect("directories");
    fs::write(tree.join("run"), "#!/bin/sh\necho ran\n").expect("a file");
    fs::set_permissions(tree.join("run"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    fs::write(tree.join("deep/er/big"), &big).expect("a file");
    symlink("deep/er/big", tree.join("link")).expect("a link");
    symlink("/etc/shadow", tree.join("away")).expect("a link");
    fs::write(tree.join("x".repeat(200)), "long name").expect("a file");

    // A directory that exists receives it inside; another name becomes its name.
    run(home, &["cp", text(&tree), "box:/root"]).ok();
    assert_eq!(run(home, &["exec", "box", "--", "/root/tree/run"]).ok(), "ran\n");
    run(home, &["cp", text(&tree), "box:/root/renamed"]).ok();
    let sum =
        run(home, &["exec", "box", "--", "cmp", "/root/tree/link", "/root/renamed/deep/er/big"]);
    assert_eq!(sum.code, 0, "{sum:?}");
    // Links are copied as links, never followed.
    let target = run(home, &["exec", "box", "--", "readlink", "/root/tree/away"]).ok();
    assert_eq!(target, "/etc/shadow\n");
    // Contents alone.
    run(home, &["exec", "box", "--", "mkdir", "/root/flat"]).ok();
    run(home, &["cp", &format!("{}/.", text(&tree)), "box:/root/flat"]).ok();
    assert_eq!(run(home, &["exec", "box", "--", "/root/flat/run"]).ok(), "ran\n");

    let back = server.home().beside("back");
    run(home, &["cp", "box:/root/tree", text(&back)]).ok();
    assert_eq!(fs::read(back.join("deep/er/big")).expect("the file"), big);
    assert_eq!(fs::read_link(back.join("link")).expect("the link"), Path::new("deep/er/big"));
    assert_eq!(mode(&back.join("run")), 0o755);
    assert_eq!(fs::read(back.join("x".repeat(200))).expect("the file"), b"long name");
    run(home, &["cp", "box:/root/tree/run", text(&back)]).ok();
    run(home, &["cp", "box:/root/tree/run", text(&back.join("other"))]).ok();
    assert_eq!(mode(&back.join("other")), 0o755);
    let flat = server.home().beside("flat");
    fs::create_dir(&flat).expect("a directory");
    run(home, &["cp", "box:/root/tree/.", text(&flat)]).ok();
    assert!(flat.join("deep/er/big").is_file());
    server.stop();
}

#[test]
fn set_user_id_does_not_leave_and_streams_are_tar() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "box"]).ok();
    let script =
        "mkdir /root/d && cp /bin/true /root/d/su && chmod 6755 /root/d/su && mkfifo /root/d/pipe";
    run(home, &["exec", "box", "--", "sh", "-c", script]).ok();
    let out = server.home().beside("out");
    let said = run(home, &["cp", "box:/root/d", text(&out)]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(mode(&out.join("su")), 0o755);
    assert!(!out.join("pipe").exists());

    let tar = pinfold(home).args(["cp", "box:/root/d", "-"]).output().expect("it runs");
    assert!(tar.status.success() && tar.stdout.len().is_multiple_of(512));
    run(home, &["exec", "box", "--", "mkdir", "/root/again"]).ok();
    run_with(home, &["cp", "-", "box:/root/again"], &tar.stdout).ok();
    assert_eq!(run(home, &["exec", "box", "--", "test", "-x", "/root/again/d/su"]).code, 0);
    // Nothing is a tar that is none.
    let refused = run_with(home, &["cp", "-", "box:/root/again"], &[b'x'; 4096]);
    assert_eq!(refused.code, 2, "{refused:?}");
    server.stop();
}

#[test]
fn a_link_inside_does_not_lead_a_copy_outside() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "box"]).ok();
    let out = server.home().beside("out");
    let victim = server.home().beside("victim");
    fs::create_dir(&out).expect("a directory");
    fs::create_dir(&victim).expect("a directory");
    // The workspace brings a link to a directory of this machine, and the next copy would go
    // through it.
    let script = format!("mkdir -p /root/a && ln -s {} /root/a/b", text(&victim));
    run(home, &["exec", "box", "--", "sh", "-c", &script]).ok();
    run(home, &["cp", "box:/root/a", text(&out)]).ok();
    let script = "rm /root/a/b && mkdir /root/a/b && echo x > /root/a/b/file";
    run(home, &["exec", "box", "--", "sh", "-c", script]).ok();
    let said = run(home, &["cp", "box:/root/a", text(&out)]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(fs::read_dir(&victim).expect("the victim").next().is_none(), "written outside");
    server.stop();
}

#[test]
fn a_copy_that_fails_leaves_what_was_there() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "box", "--disk", "16MiB"]).ok();
    let script = "echo PRECIOUS > /root/x && mkdir /root/d && truncate -s 15T /root/d/bomb";
    run(home, &["exec", "box", "--", "sh", "-c", script]).ok();
    let inside = |command: &str| run(home, &["exec", "box", "--", "sh", "-c", command]).ok();

    // The disk is full before the file is whole.
    let big = server.home().beside("big");
    let content: Vec<u8> =
        (0..48_u32 << 20).map(|n| ((n.wrapping_mul(n) >> 7) % 253) as u8).collect();
    fs::write(&big, content).expect("a file");
    let said = run(home, &["cp", text(&big), "box:/root/x"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert_eq!(inside("cat /root/x; ls -A /root | grep -c part; true"), "PRECIOUS\n0\n");
    // A directory does not replace a file, either way.
    let tree = server.home().beside("tree");
    fs::create_dir(&tree).expect("a directory");
    let said = run(home, &["cp", text(&tree), "box:/root/x"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("/root/x is a file; a directory cannot replace it"), "{said:?}");
    let here = server.home().beside("here");
    fs::write(&here, "PRECIOUS").expect("a file");
    let said = run(home, &["cp", "box:/root/d", text(&here)]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("is a file; a directory cannot replace it"), "{said:?}");
    // Nor does a file without end fill this machine's disk.
    let said = run(home, &["cp", "box:/root/d/bomb", text(&here)]);
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.err.contains("has 15.0 TiB, and") && said.err.contains("free"), "{said:?}");
    assert_eq!(fs::read(&here).expect("the file"), b"PRECIOUS");
    assert_eq!(inside("cat /root/x"), "PRECIOUS\n");
    server.stop();
}

#[test]
fn what_cannot_be_copied_is_said() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "box"]).ok();
    let out = server.home().beside("out");
    fs::create_dir(&out).expect("a directory");
    // The guest may not read its own memory, and that is what is said.
    for (source, code) in [("box:/dev/null", 2), ("box:/proc", 2), ("box:/proc/1/mem", 4)] {
        let said = run(home, &["cp", source, text(&out.join("it"))]);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(&source[4..]), "{said:?}");
    }
    run(home, &["cp", "box:/proc/version", text(&out)]).ok();
    let inside = run(home, &["exec", "box", "--", "cat", "/proc/version"]).ok();
    assert_eq!(fs::read_to_string(out.join("version")).expect("the file"), inside);

    // The other way: pipes are counted, links between files stay links.
    let said = run(home, &["cp", "/dev/null", "box:/root/null"]);
    assert_eq!(said.code, 2, "{said:?}");
    let tree = server.home().beside("tree");
    fs::create_dir(&tree).expect("a directory");
    fs::write(tree.join("a"), "content").expect("a file");
    fs::hard_link(tree.join("a"), tree.join("b")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("s")).expect("a socket");
    let said = run(home, &["cp", text(&tree), "box:/root"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("1 devices, sockets or pipes were left out"), "{said:?}");
    let links = run(home, &["exec", "box", "--", "stat", "-c", "%h", "/root/tree/b"]).ok();
    assert_eq!(links, "2\n");

    // One sentence for a directory that is not there, and how to make it.
    let nowhere = out.join("nodir");
    let here = format!("{}/", text(&nowhere));
    let below = nowhere.join("x");
    for (from, to) in [
        (text(&tree), "box:/nodir/"),
        (text(&tree), "box:/nodir/x"),
        ("box:/root/tree", here.as_str()),
        ("box:/root/tree", text(&below)),
    ] {
        let said = run(home, &["cp", from, to]);
        assert_eq!(said.code, 3, "{to}: {said:?}");
        let (place, make) = match to.strip_prefix("box:") {
            Some(_) => ("/nodir", "pinfold exec box -- mkdir -p /nodir".to_owned()),
            None => (text(&nowhere), format!("mkdir -p {}", text(&nowhere))),
        };
        assert!(said.err.contains(&format!("there is no directory {place}\n")), "{to}: {said:?}");
        assert!(said.err.contains(&format!("hint: make it: {make}\n")), "{to}: {said:?}");
    }
    let said = run(home, &["cp", text(&tree), "nobox:/nodir/x"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("nobox") && !said.err.contains("directory"), "{said:?}");
    server.stop();
}
