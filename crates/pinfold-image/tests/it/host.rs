//! The image `host` shows programs and nothing of this machine or its people.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::support::{mode, open, walk};
use pinfold_types::Mode;

#[test]
fn the_skeleton_holds_what_programs_need_and_nothing_of_this_machine() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    let info = store.ensure_host().expect("the host image");
    let mounts = store.root_mounts(&info.id).expect("mounts");
    assert_eq!(mounts[0].target, "/");
    assert_eq!(mounts[1].target, "/usr");
    assert_eq!(mounts[1].lowers.last().map(std::path::PathBuf::as_path), Some(Path::new("/usr")));
    assert_eq!(mounts[0].idmapped, mode() == Mode::Root);
    let tree = &mounts[0].lowers[0];

    for needed in [
        "etc/passwd",
        "etc/group",
        "etc/shadow",
        "etc/resolv.conf",
        "etc/nsswitch.conf",
        "etc/profile",
        "etc/ld.so.cache",
        "etc/os-release",
        "etc/localtime",
        "etc/ssl/certs/ca-certificates.crt",
        "bin",
        "lib",
        "sbin",
        "tmp",
        "root",
        "home",
        "dev",
        "proc",
        "sys",
        "run",
        "workspace",
        "var/tmp",
        "var/log",
        "etc/services",
        "etc/mime.types",
        "var/lib/dpkg/status",
        "var/lib/dpkg/info",
        "etc/apt/sources.list.d/base.sources",
        "etc/alternatives/awk",
        "etc/pam.d/su",
        "etc/skel/.bashrc",
        "etc/debian_version",
    ] {
        assert!(fs::symlink_metadata(tree.join(needed)).is_ok(), "{needed} is missing");
    }
    let mode_of = |name: &str| fs::metadata(tree.join(name)).expect(name).mode() & 0o7777;
    assert_eq!(mode_of("tmp"), 0o1777);
    assert_eq!(mode_of("var/tmp"), 0o1777);
    assert_eq!(mode_of("root"), 0o700);
    assert_eq!(mode_of("etc/shadow"), 0o640);

    let paths = walk(tree);
    for path in &paths {
        let inside = path.strip_prefix(tree).expect("below");
        for never in [
            "etc/machine-id",
            "etc/ssh/ssh_host",
            "etc/sudoers",
            "etc/cron",
            "etc/NetworkManager",
            "etc/wpa_supplicant",
            "etc/ssl/private/",
            "root/",
            "home/",
            "var/log/apt/",
            "var/mail/",
            "etc/apt/auth.conf",
            "etc/shadow-",
            "etc/gshadow-",
            "etc/netplan",
            "var/lib/dbus",
            "etc/krb5.keytab",
            "etc/gitconfig",
            "etc/pip.conf",
            "etc/npmrc",
        ] {
            let text = inside.to_str().expect("names are UTF-8");
            let found = text.starts_with(never) && text.len() > never.len().max(1) - 1;
            assert!(!found || text == "etc/apt/auth.conf.d", "{text}");
        }
    }

    // People and secrets of this machine, looked up here and searched for there.
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let passwd = fs::read_to_string("/etc/passwd").expect("passwd");
    let people: Vec<&str> = passwd
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(':');
            let (name, _, uid) = (parts.next()?, parts.next()?, parts.next()?);
            let uid: u32 = uid.parse().ok()?;
            ((1000..65534).contains(&uid)).then_some(name)
        })
        .collect();
    let hashes: Vec<String> = fs::read_to_string("/etc/shadow")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(':').nth(1).filter(|hash| hash.len() > 8).map(str::to_owned))
        .collect();
    for path in
        paths.iter().filter(|path| fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file()))
    {
        let content = fs::read(path).expect("readable");
        let text = String::from_utf8_lossy(&content);
        let name = path.display();
        assert!(!text.contains("PRIVATE KEY-----"), "{name} holds a key");
        assert!(machine_id.trim().is_empty() || !text.contains(machine_id.trim()), "{name}");
        for hash in &hashes {
            assert!(!text.contains(hash.as_str()), "{name} holds a password hash");
        }
        if path.starts_with(tree.join("etc")) && path.extension().is_none_or(|e| e != "cache") {
            for person in &people {
                let word = |w: &str| w == *person;
                let split = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-';
                assert!(!text.split(split).any(word), "{name} names {person}");
            }
        }
    }
    let shadow = fs::read_to_string(tree.join("etc/shadow")).expect("shadow");
    assert!(shadow.lines().all(|line| line.split(':').nth(1) == Some("*")), "all are locked");
}

#[test]
fn it_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = open(dir.path()).ensure_host().expect("made");
    let store = open(dir.path());
    let second = store.ensure_host().expect("found");
    assert_eq!(first, second);
    assert_eq!(store.get("host").expect("by name").id, first.id);
    assert_eq!(store.get(&first.id.to_string()).expect("by id").id, first.id);
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.get("nothing").expect_err("unknown").code.as_str(), "not_found");
}
