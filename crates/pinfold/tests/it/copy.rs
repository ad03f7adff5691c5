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
