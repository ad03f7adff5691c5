//! Images of files that belong to the user's sub-ids.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use testkit::User;

use crate::usable;

/// A tar that the user may read.
fn tar(user: &User, from: &Path, name: &str, members: &[&str]) -> PathBuf {
    let path = user.home().join(name);
    let status = Command::new("tar")
        .args(["--create", "--no-recursion", "--file"])
        .arg(&path)
        .arg("--directory")
        .arg(from)
        .args(members)
        .status()
        .expect("tar");
    assert!(status.success());
    user.give(&path);
    path
}

/// A root filesystem that holds owners and modes which the user itself may not read, and a
/// static program, the attacker's, which is not run.
fn rootfs(user: &User) -> PathBuf {
    let work = tempfile::tempdir().expect("a directory");
    let top = work.path();
    for name in ["bin", "etc", "root", "srv"] {
        fs::create_dir(top.join(name)).expect("a directory");
    }
    fs::write(top.join("etc/shadow"), "root:*:1::::::\n").expect("a file");
    fs::write(top.join("root/secret"), "of root\n").expect("a file");
    fs::hard_link(top.join("root/secret"), top.join("srv/same")).expect("a link");
    symlink("../etc/shadow", top.join("srv/link")).expect("a link");
    for (name, mode) in [("etc/shadow", 0o640), ("root/secret", 0o600), ("root", 0o700)] {
        fs::set_permissions(top.join(name), PermissionsExt::from_mode(mode)).expect("ours");
    }
    chown(top.join("etc/shadow"), Some(0), Some(42)).expect("the test runs as root");
    chown(top.join("srv"), Some(1000), Some(1000)).expect("the test runs as root");
    fs::set_permissions(top, PermissionsExt::from_mode(0o700)).expect("ours");
    let members = [
        ".",
        "./bin",
        "./etc",
        "./etc/shadow",
        "./root",
        "./root/secret",
        "./srv",
        "./srv/same",
        "./srv/link",
    ];
    tar(user, top, "root.tar", &members)
}

/// What `tar` lists of each layer of an exported image, sorted.
fn exported(user: &User, image: &str) -> (PathBuf, Vec<String>) {
    let archive = user.home().join(format!("{}.tar", image.replace(':', "-")));
    user.pinfold(&["image", "export", image, "--output", &archive.to_string_lossy()]).ok();
    let layout = user.home().join(format!("{}.layout", image.replace(':', "-")));
    fs::create_dir(&layout).expect("a directory");
    user.give(&layout);
    let mut unpack = user.command("tar");
    user.run(unpack.arg("--extract").arg("--directory").arg(&layout).arg("--file").arg(&archive))
        .ok();
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("manifest.json")).expect("docker's manifest"))
            .expect("it is JSON");
    let mut lines = Vec::new();
    for layer in manifest[0]["Layers"].as_array().expect("layers") {
        let mut list = user.command("tar");
        list.args(["--list", "--verbose", "--numeric-owner", "--file"])
            .arg(layout.join(layer.as_str().expect("a path")));
        let said = user.run(&mut list).ok();
        lines.extend(said.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Mode, owner, and from the name on.
            format!("{} {} {}", words[0], words[1], words[5..].join(" "))
        }));
    }
    lines.sort();
    (layout, lines)
}

#[test]
fn owners_and_modes_survive_import_export_and_builds() {
    let Some(user) = usable() else { return };
    let archive = rootfs(&user);
    user.pinfold(&["image", "import", &archive.to_string_lossy(), "small"]).ok();
    let (layout, lines) = exported(&user, "small");
    let wanted = [
        "-rw-r----- 0/42 etc/shadow",
        "drwx------ 0/0 ./",
        "drwx------ 0/0 root/",
        "drwxr-xr-x 0/0 bin/",
        "drwxr-xr-x 0/0 etc/",
        "drwxr-xr-x 1000/1000 srv/",
        "-rw------- 0/0 root/secret",
        "hrw------- 0/0 srv/same link to root/secret",
        "lrwxrwxrwx 0/0 srv/link -> ../etc/shadow",
    ];
    let mut wanted = wanted.map(str::to_owned).to_vec();
    wanted.sort();
    assert_eq!(lines, wanted);
    // Both kinds of what was exported come back as they were.
    for (from, name, format) in [
        (layout.clone(), "layout:1", "oci-layout"),
        (user.home().join("small.tar"), "docker:1", "docker-archive"),
    ] {
        let from = from.to_string_lossy().into_owned();
        user.pinfold(&["image", "import", &from, name, "--format", format]).ok();
        assert_eq!(exported(&user, name).1, wanted, "{format}");
    }
    built(&user);
    user.pinfold(&["image", "rm", "small"]).ok();
    user.pinfold(&["image", "prune"]).ok();
}

/// From steps, on `host`: files of all owners get into the layer, and out of it.
fn built(user: &User) {
    let context = user.home().join("context");
    fs::create_dir(&context).expect("a directory");
    let steps = "FROM host\nCOPY file /srv/file\nRUN umask 077; mkdir /srv/private && echo own > \
                 /srv/private/own && chown -R 33:33 /srv/private && rm -r /etc/skel\n";
    for (name, text) in [("Pinfile", steps), ("file", "copied\n")] {
        fs::write(context.join(name), text).expect("a file");
        user.give(&context.join(name));
    }
    user.give(&context);
    user.pinfold(&["image", "build", "built", "context"]).ok();
    let look = "cat /srv/file /srv/private/own; stat -c '%u %a' /srv/private; ls -d /etc/skel";
    let output = user.pinfold(&["run", "--image", "built", "--", "sh", "-c", look]);
    assert_eq!(output.stdout, "copied\nown\n33 700\n", "{output:?}");
    assert!(output.stderr.contains("/etc/skel"), "{output:?}");
    let again = user.pinfold(&["image", "build", "built", "context"]);
    assert_eq!(again.code, 0, "from the cache: {again:?}");
}

/// Owners are set after everything is unpacked. A name that has become a link by then must not
/// lead out of the image.
#[test]
fn a_hostile_archive_changes_no_file_of_the_user() {
    let Some(user) = usable() else { return };
    let mine = user.home().join("mine");
    fs::create_dir(&mine).expect("a directory");
    fs::write(mine.join("file"), "mine").expect("a file");
    for path in [mine.join("file"), mine.clone()] {
        user.give(&path);
    }
    fs::set_permissions(mine.join("file"), PermissionsExt::from_mode(0o600)).expect("ours");
    let work = tempfile::tempdir().expect("a directory");
    let top = work.path();
    for name in ["bin", "dir"] {
        fs::create_dir(top.join(name)).expect("a directory");
    }
    for name in ["dir/file", "file"] {
        fs::write(top.join(name), "theirs").expect("a file");
        fs::set_permissions(top.join(name), PermissionsExt::from_mode(0o4777)).expect("ours");
        chown(top.join(name), Some(7), Some(7)).expect("the test runs as root");
    }
    let archive = tar(&user, top, "hostile.tar", &["bin", "dir", "dir/file", "file"]);
    // The same names again, now as links to what is the user's.
    fs::remove_dir_all(top.join("dir")).expect("ours");
    fs::remove_file(top.join("file")).expect("ours");
    symlink(&mine, top.join("dir")).expect("a link");
    symlink(mine.join("file"), top.join("file")).expect("a link");
    let status = Command::new("tar")
        .args(["--append", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(top)
        .args(["dir", "file"])
        .status()
        .expect("tar");
    assert!(status.success());
    let output = user.pinfold(&["image", "import", &archive.to_string_lossy(), "hostile"]);
    let after = fs::metadata(mine.join("file")).expect("it is there");
    assert_eq!((after.mode() & 0o7777, after.uid()), (0o600, user.uid()), "{output:?}");
    let dir = fs::metadata(&mine).expect("it is there");
    assert_eq!(dir.uid(), user.uid(), "{output:?}");
    assert_eq!(output.code, 0, "{output:?}");
}
