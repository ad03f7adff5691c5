use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use super::*;

/// A tar with names written as they are, which `tar::Builder` itself would refuse.
fn tar(entries: &[(EntryType, &str, &str, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, name, link, mode, data) in entries {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn unpack_into(directory: &Path, bytes: &[u8]) -> Result<Unpacked> {
    unpack(bytes, &mut Tree::open(directory)?, Some("top"), |_| {})
}

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;

#[test]
fn a_tree_arrives_with_modes_and_without_set_user_id() {
    let home = tempfile::tempdir().expect("a directory");
    let bytes = tar(&[
        (DIR, "src/", "", 0o555, b""),
        (FILE, "src/run", "", 0o4755, b"#!/bin/sh\n"),
        (DIR, "src/sub", "", 0o2777, b""),
        (FILE, "src/sub/a", "", 0o640, b"aa"),
        (EntryType::Symlink, "src/link", "sub/a", 0o777, b""),
        (EntryType::Link, "src/hard", "src/sub/a", 0o640, b""),
        (EntryType::Char, "src/null", "", 0o666, b""),
    ]);
    let done = unpack_into(home.path(), &bytes).expect("a good archive");
    assert_eq!(done, Unpacked { entries: 6, bytes: 12, skipped: 1 });
    let mode = |name: &str| {
        fs::symlink_metadata(home.path().join(name)).expect(name).permissions().mode() & 0o7777
    };
    assert_eq!(mode("top/run"), 0o755);
    assert_eq!(mode("top"), 0o555);
    assert_eq!(mode("top/sub"), 0o777);
    assert_eq!(fs::read(home.path().join("top/hard")).expect("hard link"), b"aa");
    assert_eq!(fs::read_link(home.path().join("top/link")).expect("link"), Path::new("sub/a"));
    let modified =
        fs::metadata(home.path().join("top/run")).expect("run").modified().expect("time");
    assert_eq!(
        modified.duration_since(std::time::UNIX_EPOCH).expect("after").as_secs(),
        1_000_000_000
    );
    assert!(!home.path().join("top/null").exists());
}

#[test]
fn nothing_is_written_outside_the_destination() {
    let base = tempfile::tempdir().expect("a directory");
    let outside = base.path().join("outside");
    fs::create_dir(&outside).expect("outside");
    fs::write(outside.join("kept"), "kept").expect("kept");
    let away = outside.to_str().expect("text");
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("parent", tar(&[(FILE, "a/../../outside/new", "", 0o644, b"x")])),
        ("absolute", tar(&[(FILE, &format!("{away}/new"), "", 0o644, b"x")])),
        (
            "through a link",
            tar(&[
                (DIR, "a", "", 0o755, b""),
                (EntryType::Symlink, "a/out", away, 0o777, b""),
                (FILE, "a/out/new", "", 0o644, b"x"),
            ]),
        ),
        (
            "through a relative link",
            tar(&[
                (DIR, "a", "", 0o755, b""),
                (EntryType::Symlink, "a/out", "../../outside", 0o777, b""),
                (FILE, "a/out/new", "", 0o644, b"x"),
            ]),
        ),
        (
            "a directory over a link",
            tar(&[
                (EntryType::Symlink, "a", away, 0o777, b""),
                (DIR, "a", "", 0o700, b""),
                (FILE, "a/new", "", 0o644, b"x"),
            ]),
        ),
        (
            "hard link to the outside",
            tar(&[
                (DIR, "a", "", 0o755, b""),
                (EntryType::Link, "a/kept", &format!("{away}/kept"), 0o644, b""),
            ]),
        ),
        (
            "hard link through a link",
            tar(&[
                (DIR, "a", "", 0o755, b""),
                (EntryType::Symlink, "a/out", away, 0o777, b""),
                (EntryType::Link, "a/kept", "a/out/kept", 0o644, b""),
            ]),
        ),
    ];
    for (what, bytes) in hostile {
        let inside = base.path().join("inside");
        fs::create_dir(&inside).expect("inside");
        assert!(unpack_into(&inside, &bytes).is_err(), "{what} was taken");
        let left: Vec<_> = fs::read_dir(&outside).expect("outside").collect();
        assert_eq!(left.len(), 1, "{what} wrote outside");
        assert_eq!(fs::read(outside.join("kept")).expect("kept"), b"kept", "{what}");
        fs::remove_dir_all(&inside).expect("inside");
    }
}

#[test]
fn a_file_that_replaces_a_link_does_not_write_through_it() {
    let base = tempfile::tempdir().expect("a directory");
    let victim = base.path().join("victim");
    fs::write(&victim, "kept").expect("victim");
    let inside = base.path().join("inside");
    fs::create_dir(&inside).expect("inside");
    let bytes = tar(&[
        (DIR, "a", "", 0o755, b""),
        (EntryType::Symlink, "a/f", victim.to_str().expect("text"), 0o777, b""),
        (FILE, "a/f", "", 0o644, b"new"),
    ]);
    unpack_into(&inside, &bytes).expect("a link replaced by a file");
    assert_eq!(fs::read(&victim).expect("victim"), b"kept");
    assert_eq!(fs::read(inside.join("top/f")).expect("file"), b"new");
}

#[test]
fn a_giant_header_is_refused_before_it_is_read() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let home = tempfile::tempdir().expect("a directory");
    let refused = unpack_into(home.path(), header.as_bytes()).expect_err("a terabyte of name");
    assert_eq!(refused.code, ErrorCode::TooLarge);
}

#[test]
fn a_cut_archive_is_an_error() {
    let home = tempfile::tempdir().expect("a directory");
    let bytes = tar(&[(FILE, "a", "", 0o644, &[1; 4096])]);
    assert!(unpack_into(home.path(), &bytes[..2000]).is_err());
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_there_stays_until_its_successor_is_whole() {
    let home = tempfile::tempdir().expect("a directory");
    let there = home.path().join("top");
    fs::write(&there, "PRECIOUS").expect("a file");
    fs::hard_link(&there, home.path().join("twin")).expect("a link");
    let content = vec![7; 100_000];
    let bytes = tar(&[(FILE, "a", "", 0o644, &content)]);
    // Cut at its start, within the content, and one byte before its end.
    for cut in [513, 60_000, 511 + content.len()] {
        assert!(unpack_into(home.path(), &bytes[..cut]).is_err(), "{cut}");
        assert!(fs::read(&there).expect("the old one") == b"PRECIOUS", "{cut}");
        assert_eq!(names(home.path()), ["top", "twin"], "{cut}");
    }
    unpack_into(home.path(), &bytes).expect("a whole one");
    assert!(fs::read(&there).expect("the new one") == content);
    assert_eq!(fs::read(home.path().join("twin")).expect("the other name"), b"PRECIOUS");
}

#[test]
fn a_directory_and_a_file_do_not_replace_each_other() {
    let home = tempfile::tempdir().expect("a directory");
    let there = home.path().join("top");
    fs::write(&there, "kept").expect("a file");
    let refused =
        unpack_into(home.path(), &tar(&[(DIR, "a", "", 0o755, b"")])).expect_err("a file");
    assert_eq!(refused.code, ErrorCode::InvalidPath);
    let expected = format!("{} is a file; a directory cannot replace it", there.display());
    assert_eq!(refused.message, expected);
    assert_eq!(fs::read(&there).expect("the file"), b"kept");
    fs::remove_file(&there).expect("removed");
    fs::create_dir(&there).expect("a directory");
    let refused =
        unpack_into(home.path(), &tar(&[(FILE, "a", "", 0o644, b"x")])).expect_err("a directory");
    let expected = format!("{} is a directory; a file cannot replace it", there.display());
    assert_eq!((refused.code, refused.message), (ErrorCode::InvalidPath, expected));
    assert_eq!(names(home.path()), ["top"]);
}

#[test]
fn a_bomb_is_refused_and_zeros_become_holes() {
    let home = tempfile::tempdir().expect("a directory");
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").expect("a name");
    header.set_entry_type(FILE);
    header.set_mode(0o644);
    header.set_size(1 << 60);
    header.set_cksum();
    let refused = unpack_into(home.path(), header.as_bytes()).expect_err("an exabyte");
    assert_eq!(refused.code, ErrorCode::DiskFull);
    for part in ["/top has 1.00 EiB", home.path().to_str().expect("text"), "free"] {
        assert!(refused.message.contains(part), "{refused}");
    }
    assert!(names(home.path()).is_empty());

    let mut content = vec![0; 3 << 20];
    content[1 << 20] = 1;
    unpack_into(home.path(), &tar(&[(FILE, "a", "", 0o644, &content)])).expect("mostly zeros");
    assert_eq!(fs::read(home.path().join("top")).expect("the file"), content);
    let blocks = fs::metadata(home.path().join("top")).expect("the file").blocks();
    assert!(blocks * 512 <= 1 << 20, "{blocks} blocks");
}

#[test]
fn a_destination_that_is_not_there_says_how_to_make_it() {
    let missing = Path::new("/nonexistent/destination");
    let refused = Tree::open(missing).expect_err("it is not there");
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert_eq!(refused.hint.as_deref(), Some("make it: mkdir -p /nonexistent/destination"));
}
