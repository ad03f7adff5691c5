//! Archives, in and out, honest and hostile.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use pinfold_guest::archive::header::{Entry, Type, pad, write};
use pinfold_proto::ArchiveOptions;
use pinfold_types::{Error, ErrorCode};

use crate::{
    files::{pieces, whole},
    harness::{Box, run, sh},
    node::guest::{ByteStream, Guest},
};

/// An entry and its content.
type Part = (Entry, Vec<u8>);

fn entry(kind: Type, path: &str, link: &str, content: &[u8]) -> Part {
    let entry = Entry {
        kind,
        path: path.into(),
        link: link.into(),
        mode: 0o755,
        uid: 3,
        gid: 4,
        size: content.len() as u64,
        mtime: 1_000_000_000,
        xattrs: vec![],
    };
    (entry, content.to_vec())
}

fn tar(entries: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, content) in entries {
        write(&mut out, entry).unwrap();
        out.extend_from_slice(content);
        pad(&mut out, content.len() as u64).unwrap();
    }
    out.resize(out.len() + 1024, 0);
    out
}

async fn put(guest: &Guest, dir: &str, tar: Vec<u8>) -> Result<u64, Error> {
    let options = ArchiveOptions::default();
    guest.archive_put(dir, pieces(&tar), options).await.map(|done| done.entries)
}

#[tokio::test]
async fn a_tree_goes_out_and_in_unchanged() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let path = |name: &str| workspace.path(name);
    let deep = format!("src/{}/{}", "d".repeat(120), "e".repeat(200));
    std::fs::create_dir_all(path(&deep)).unwrap();
    std::fs::write(path(&format!("{deep}/long name")), "long").unwrap();
    std::fs::write(path("src/big"), vec![9; 3_000_001]).unwrap();
    std::fs::write(path("src/empty"), "").unwrap();
    std::fs::hard_link(path("src/big"), path("src/twin")).unwrap();
    symlink("t".repeat(150), path("src/link")).unwrap();
    std::os::unix::fs::chown(path("src/big"), Some(70_000), Some(99)).unwrap();
    std::fs::set_permissions(path("src/big"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    run(
        &guest,
        sh(&format!(
            "touch -d @1234567890 {0}/big {0}/{1}; mkfifo {0}/fifo",
            path("src"),
            "d".repeat(120)
        )),
    )
    .await;
    let archive = whole(guest.archive_get(&path("src")).await.unwrap()).await.unwrap();
    assert_eq!(archive.len() % 512, 0);

    // Every other tar reads it too.
    std::fs::write(path("a.tar"), &archive).unwrap();
    let compare = format!(
        "tar -df {} -C {} && python3 -c 'import tarfile; print(len(tarfile.open(\"{}\").getnames()))'",
        path("a.tar"),
        workspace.dir.display(),
        path("a.tar")
    );
    let outcome = run(&guest, sh(&compare)).await;
    assert_eq!(outcome.text(), "9\n", "{}", String::from_utf8_lossy(&outcome.err));

    assert_eq!(put(&guest, &path("copy"), archive).await.unwrap(), 8);
    let same = format!(
        "cd {}; rm src/fifo; diff -r --no-dereference src copy/src && \
        for d in src copy/src; do (cd $d; find . ! -type d -printf '%p %m %U %G %n %l\\n' | sort; find . -type d -printf '%p %m\\n' | sort); done | \
        sort | uniq -c | grep -vc '^ *2 '; stat -c %Y copy/src/d* copy/src/big",
        workspace.dir.display()
    );
    assert_eq!(run(&guest, sh(&same)).await.text(), "0\n1234567890\n1234567890\n");
    let (a, b) =
        (std::fs::metadata(path("copy/src/big")), std::fs::metadata(path("copy/src/twin")));
    assert_eq!(a.unwrap().ino(), b.unwrap().ino());
    // Content alone, one file, and what is not there.
    let content =
        whole(guest.archive_get(&format!("{}/.", path("src"))).await.unwrap()).await.unwrap();
    assert_eq!(put(&guest, &path("flat"), content).await.unwrap(), 7);
    assert!(std::fs::metadata(path("flat/big")).is_ok());
    let one = whole(guest.archive_get(&path("src/empty")).await.unwrap()).await.unwrap();
    assert_eq!(one.len(), 512 + 1024);
    assert_eq!(guest.archive_get(&path("nothing")).await.err().unwrap().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn archives_of_gnu_tar_and_python_are_read() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let dir = workspace.dir.display();
    let long = "n".repeat(180);
    let make = format!(
        "cd {dir}; mkdir -p src/{long}; echo hi > src/{long}/{long}; ln -s {long}/{long} src/l; ln src/{long}/{long} src/h; touch -d @1500000000.5 src/h; \
         for f in gnu pax ustar v7 oldgnu; do tar --format=$f -cf $f.tar src 2>/dev/null; done; \
         python3 -c 'import tarfile; t=tarfile.open(\"py.tar\",\"w\",format=tarfile.PAX_FORMAT); t.add(\"src\")'"
    );
    run(&guest, sh(&make)).await;
    for format in ["gnu", "pax", "oldgnu", "py"] {
        let archive = std::fs::read(workspace.path(&format!("{format}.tar"))).unwrap();
        let into = workspace.path(&format!("out-{format}"));
        assert_eq!(put(&guest, &into, archive).await.unwrap(), 5, "{format}");
        let check =
            format!("diff -r --no-dereference {dir}/src {into}/src && stat -c %Y {into}/src/h");
        assert_eq!(run(&guest, sh(&check)).await.text(), "1500000000\n", "{format}");
    }
}

#[tokio::test]
async fn hostile_archives_stay_inside_their_directory() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let outside = workspace.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(workspace.path("outside/victim"), "kept").unwrap();
    let abs_victim = workspace.path("outside/victim");
    let f = |path: &str| entry(Type::File, path, "", b"evil");
    let cases: Vec<(&str, Vec<Part>)> = vec![
        ("dotdot", vec![f("../escaped")]),
        ("dotdot deep", vec![f("a/../../escaped")]),
        ("dotdot dir", vec![entry(Type::Directory, "..", "", b""), f("x/..")]),
        ("link then through", vec![entry(Type::Symlink, "s", &outside, b""), f("s/victim")]),
        (
            "relative link then through",
            vec![entry(Type::Symlink, "s", "../outside", b""), f("s/new")],
        ),
        (
            "link to link",
            vec![
                entry(Type::Symlink, "a", "..", b""),
                entry(Type::Symlink, "b", "a/outside", b""),
                f("b/victim"),
            ],
        ),
        ("hard link out", vec![entry(Type::HardLink, "h", "../outside/victim", b""), f("h")]),
        (
            "hard link through link",
            vec![
                entry(Type::Symlink, "s", "../outside", b""),
                entry(Type::HardLink, "h", "s/victim", b""),
                f("h"),
            ],
        ),
        ("device", vec![entry(Type::File, "ok", "", b"ok")]),
        ("nul", vec![f("a\0b/../../x")]),
    ];
    for (place, (name, entries)) in cases.iter().enumerate() {
        let dir = workspace.path(&format!("in-{place}"));
        let mut archive = tar(entries);
        if *name == "device" {
            // The type by hand, with its checksum: our own writer makes none.
            archive[156] = b'3';
            archive[148..156].fill(b' ');
            let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
            archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let result = put(&guest, &dir, archive).await;
        if *name == "nul" {
            // A header's name ends at its NUL.
            assert_eq!(result.unwrap(), 1);
        } else {
            assert_eq!(result.unwrap_err().code, ErrorCode::BadImage, "{name}");
        }
        assert_eq!(std::fs::read_to_string(&abs_victim).unwrap(), "kept", "{name}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "{name}");
        assert!(!workspace.dir.join("escaped").exists(), "{name}");
    }
    // Absolute names and links are only names below the directory.
    let dir = workspace.path("absolute");
    let archive = tar(&[
        f(&abs_victim),
        entry(Type::Symlink, "over", &abs_victim, b""),
        f("over"),
        entry(Type::HardLink, "twin", "/over", b""),
    ]);
    assert_eq!(put(&guest, &dir, archive).await.unwrap(), 4);
    assert_eq!(std::fs::read_to_string(&abs_victim).unwrap(), "kept");
    assert_eq!(std::fs::read_to_string(format!("{dir}{abs_victim}")).unwrap(), "evil");
    assert!(std::fs::symlink_metadata(format!("{dir}/over")).unwrap().is_file());
    // A directory that is a link gives way to a directory; what it pointed to is untouched.
    let dir = workspace.path("swap");
    std::fs::create_dir(&dir).unwrap();
    symlink(&outside, format!("{dir}/d")).unwrap();
    let archive = tar(&[entry(Type::Directory, "d", "", b""), f("d/victim")]);
    assert_eq!(put(&guest, &dir, archive).await.unwrap(), 2);
    assert_eq!(std::fs::read_to_string(&abs_victim).unwrap(), "kept");
}

#[tokio::test]
async fn what_was_there_stays_until_its_successor_is_whole() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let dir = workspace.path("in");
    std::fs::create_dir_all(format!("{dir}/d")).unwrap();
    std::fs::write(format!("{dir}/f"), "PRECIOUS").unwrap();
    std::fs::hard_link(format!("{dir}/f"), format!("{dir}/twin")).unwrap();
    let alone = || {
        let mut names: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    // An archive that breaks off in the middle of a file.
    let good = tar(&[entry(Type::File, "f", "", &vec![7; 400_000])]);
    let refused = put(&guest, &dir, good[..300_000].to_vec()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadImage);
    assert_eq!(std::fs::read_to_string(format!("{dir}/f")).unwrap(), "PRECIOUS");
    assert_eq!(alone(), ["d", "f", "twin"]);
    // Neither takes the other's place.
    let directory = tar(&[entry(Type::Directory, "f", "", b"")]);
    let refused = put(&guest, &dir, directory).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidPath);
    assert_eq!(refused.message, format!("{dir}/f is a file; a directory cannot replace it"));
    for (kind, word) in [(Type::File, "a file"), (Type::Symlink, "a link")] {
        let refused = put(&guest, &dir, tar(&[entry(kind, "d", "x", b"")])).await.unwrap_err();
        let expected = format!("{dir}/d is a directory; {word} cannot replace it");
        assert_eq!(refused.message, expected);
    }
    assert_eq!(alone(), ["d", "f", "twin"]);
    // A hard link in the place of another name of the same file: nothing is left beside.
    let again = tar(&[entry(Type::HardLink, "twin", "f", b"")]);
    assert_eq!(put(&guest, &dir, again).await.unwrap(), 1);
    assert_eq!(alone(), ["d", "f", "twin"]);
    // The whole one replaces the name, not the file.
    assert_eq!(put(&guest, &dir, good).await.unwrap(), 1);
    assert_eq!(std::fs::read(format!("{dir}/f")).unwrap(), vec![7; 400_000]);
    assert_eq!(std::fs::read_to_string(format!("{dir}/twin")).unwrap(), "PRECIOUS");
    assert_eq!(alone(), ["d", "f", "twin"]);
}

#[tokio::test]
async fn what_has_no_content_is_refused_and_the_kernels_files_are_whole() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let fifo = workspace.path("fifo");
    run(&guest, sh(&format!("mkfifo {fifo}"))).await;
    for path in ["/dev/null", "/proc", "/proc/.", "/proc/self/mem", fifo.as_str()] {
        let refused = guest.archive_get(path).await.err().expect(path);
        assert_eq!(refused.code, ErrorCode::Unprocessable, "{path}: {refused}");
        assert!(refused.message.contains(path), "{path}: {refused}");
    }
    let version = whole(guest.archive_get("/proc/version").await.unwrap()).await.unwrap();
    let expected = std::fs::read("/proc/version").unwrap();
    assert_eq!(version[512..][..expected.len()], expected);
    assert_eq!(version.len(), 512 + expected.len().next_multiple_of(512) + 1024);
}

#[tokio::test]
async fn damaged_cut_and_oversized_archives_are_errors() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let dir = workspace.path("in");
    let good = tar(&[entry(Type::File, "f", "", &[7; 5000])]);
    for cut in [1, 511, 512, 700, 4000, 5511] {
        let refused = put(&guest, &dir, good[..cut].to_vec()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadImage, "{cut}");
    }
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert_eq!(put(&guest, &dir, flipped).await.unwrap_err().code, ErrorCode::BadImage);
    assert_eq!(put(&guest, &dir, vec![b'x'; 2048]).await.unwrap_err().code, ErrorCode::BadImage);
    assert_eq!(put(&guest, &dir, vec![]).await.unwrap(), 0);
    let options = ArchiveOptions { max_bytes: Some(4999), ..ArchiveOptions::default() };
    let refused = guest.archive_put(&dir, pieces(&good), options).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    let options = ArchiveOptions { create: false, ..ArchiveOptions::default() };
    let refused = guest.archive_put("/nonexistent", pieces(&good), options).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);

    // Given up halfway, by the caller and by whoever made the bytes: nothing hangs, nothing leaks.
    for _ in 0..20 {
        let start = tar(&[entry(Type::File, "f", "", &vec![7; 400_000])])[..300_000].to_vec();
        let stalled: ByteStream =
            std::boxed::Box::pin(stream::iter([Ok(Bytes::from(start))]).chain(stream::pending()));
        let put = guest.archive_put(&dir, stalled, ArchiveOptions::default());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), put).await.is_err());
        drop(guest.archive_get("/usr/share").await.unwrap());
    }
    let line = "for i in $(seq 500); do [ $(ls /proc/1/task | wc -l) -lt 12 ] && exit 0; sleep 0.01; done; exit 1";
    assert_eq!(run(&guest, sh(line)).await.result.exit_code, Some(0));
    assert_eq!(put(&guest, &dir, tar(&[entry(Type::File, "f", "", b"x")])).await.unwrap(), 1);
}
