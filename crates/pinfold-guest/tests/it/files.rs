//! Files.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pinfold_proto::WriteOptions;
use pinfold_types::{
    Error, ErrorCode,
    api::{FileKind, WatchEvent, WatchKind},
};
use tokio::sync::mpsc::Receiver;

use crate::{
    harness::{Box, run, sh},
    node::guest::{ByteStream, Guest},
};

pub(crate) fn pieces(data: &[u8]) -> ByteStream {
    let pieces: Vec<_> =
        data.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    std::boxed::Box::pin(stream::iter(pieces))
}

pub(crate) async fn whole(mut content: ByteStream) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(piece) = content.try_next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

async fn write(guest: &Guest, path: &str, data: &[u8], options: WriteOptions) -> Result<(), Error> {
    let info = guest.write(path, options, pieces(data)).await?;
    assert_eq!((info.kind, path.ends_with(&info.name)), (FileKind::File, true));
    Ok(())
}

#[tokio::test]
async fn content_goes_in_and_comes_out_whole_and_in_parts() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let path = workspace.path("a/b/file");
    let data: Vec<u8> = (0..7_654_321_u32).map(|n| (n % 249) as u8).collect();
    let missing = write(&guest, &path, &data, WriteOptions::default()).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
    let options =
        WriteOptions { create_parents: true, mode: Some(0o640), ..WriteOptions::default() };
    write(&guest, &path, &data, options).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == data);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(whole(guest.read(&path, 0, None).await.unwrap()).await.unwrap() == data);
    for (offset, length) in [(0, 1), (7_654_320, 10), (1_000_000, 600_000), (9_000_000, 5), (5, 0)]
    {
        let part = whole(guest.read(&path, offset, Some(length)).await.unwrap()).await.unwrap();
        let from = data.len().min(usize::try_from(offset).unwrap());
        let to = data.len().min(from + usize::try_from(length).unwrap());
        assert!(part == data[from..to], "{offset} {length}");
    }
    // In place, and beyond the end.
    for offset in [10, 8_000_000] {
        let options = WriteOptions { offset: Some(offset), ..WriteOptions::default() };
        write(&guest, &path, b"patch", options).await.unwrap();
    }
    let now = std::fs::read(&path).unwrap();
    assert!(
        &now[10..15] == b"patch" && &now[8_000_000..] == b"patch" && now[15..100] == data[15..100]
    );
    assert!(now[7_654_321..8_000_000].iter().all(|byte| *byte == 0));
    let absurd = WriteOptions { offset: Some(u64::MAX), ..WriteOptions::default() };
    assert!(write(&guest, &path, b"x", absurd).await.is_err());
    // An empty file is a file too.
    write(&guest, &path, b"", WriteOptions::default()).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    // What the kernel makes up has no size, and content all the same.
    let mounts = whole(guest.read("/proc/self/mounts", 0, None).await.unwrap()).await.unwrap();
    assert!(!mounts.is_empty());
}

#[tokio::test]
async fn a_replacement_is_all_or_nothing_and_keeps_mode_owner_and_links() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let (path, link) = (workspace.path("file"), workspace.path("link"));
    std::fs::write(&path, "old").unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(567)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("file", &link).unwrap();
    let names = || std::fs::read_dir(&workspace.dir).unwrap().count();
    let before = names();

    let broken: ByteStream = std::boxed::Box::pin(stream::iter([
        Ok(Bytes::from(vec![1; 300_000])),
        Err(Error::new(ErrorCode::Cancelled, "the caller went away")),
    ]));
    let failed = guest.write(&path, WriteOptions::default(), broken).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::Cancelled);
    let endless: ByteStream =
        std::boxed::Box::pin(stream::iter([Ok(Bytes::from_static(b"x"))]).chain(stream::pending()));
    let never = guest.write(&path, WriteOptions::default(), endless);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), never).await.is_err());
    // The guest hears of it on the same channel before the next request.
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let gone = format!(
        "until [ $(ls -A {} | wc -l) = {before} ]; do sleep 0.01; done",
        workspace.dir.display()
    );
    assert_eq!(run(&guest, sh(&gone)).await.result.exit_code, Some(0));

    guest.write(&link, WriteOptions::default(), pieces(b"new")).await.unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    let facts = std::fs::metadata(&path).unwrap();
    assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (1234, 567, 0o4755));
    assert_eq!(names(), before);
    let onto = guest.write(workspace.dir.to_str().unwrap(), WriteOptions::default(), pieces(&[]));
    assert_eq!(onto.await.unwrap_err().code, ErrorCode::Unprocessable);
}

#[tokio::test]
async fn what_is_no_file_is_refused_without_waiting() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let fifo = workspace.path("fifo");
    assert_eq!(run(&guest, sh(&format!("mkfifo {fifo}"))).await.result.exit_code, Some(0));
    for (path, code) in [
        (fifo.as_str(), ErrorCode::Unprocessable),
        ("/dev/zero", ErrorCode::Unprocessable),
        ("/", ErrorCode::Unprocessable),
        ("/nonexistent", ErrorCode::NotFound),
        ("relative", ErrorCode::InvalidPath),
        ("/nul\0byte", ErrorCode::InvalidPath),
        ("", ErrorCode::InvalidPath),
    ] {
        assert_eq!(guest.read(path, 0, None).await.err().unwrap().code, code, "{path:?}");
    }
    let refused = guest.write(&fifo, WriteOptions::default(), pieces(&[1])).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unprocessable);
    let at = WriteOptions { offset: Some(0), ..WriteOptions::default() };
    assert!(guest.write(&fifo, at, pieces(&[1])).await.is_err());
    let full = guest.write("/dev/full", WriteOptions::default(), pieces(&[1])).await.unwrap_err();
    assert_eq!(full.code, ErrorCode::Unprocessable);
}

#[tokio::test]
async fn a_full_disk_is_said_early_and_leaves_the_old_file() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let dir = workspace.path("small");
    let mount =
        format!("mkdir {dir} && mount -t tmpfs -o size=1m none {dir} && echo old > {dir}/f");
    assert_eq!(run(&guest, sh(&mount)).await.result.exit_code, Some(0));
    let path = format!("{dir}/f");
    let endless: ByteStream =
        std::boxed::Box::pin(stream::repeat_with(|| Ok(Bytes::from(vec![7; 100_000]))));
    let full = guest.write(&path, WriteOptions::default(), endless).await.unwrap_err();
    assert_eq!(full.code, ErrorCode::DiskFull);
    let outcome = run(&guest, sh(&format!("cat {path}; ls -A {dir} | wc -l"))).await;
    assert_eq!(outcome.text(), "old\n1\n");
}

#[tokio::test]
async fn names_move_change_and_go() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let path = |name: &str| workspace.path(name);
    guest.mkdir(&path("d/e"), Some(0o1777), true).await.unwrap();
    guest.mkdir(&path("d/e"), None, true).await.unwrap();
    let again = guest.mkdir(&path("d/e"), None, false).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::AlreadyExists);
    assert_eq!(guest.mkdir(&path("x/y"), None, false).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(guest.stat(&path("d/e")).await.unwrap().mode, 0o1777);
    std::fs::write(path("d/f"), "12345").unwrap();
    symlink("f", path("d/l")).unwrap();
    guest.chmod(&path("d/f"), 0o604).await.unwrap();
    guest.chown(&path("d/f"), 11, 22).await.unwrap();
    assert_eq!(
        guest.chmod(&path("d/f"), 0o10000).await.unwrap_err().code,
        ErrorCode::InvalidArgument
    );
    assert!(guest.chown(&path("d/f"), u32::MAX, 0).await.is_err());
    let info = guest.stat(&path("d/f")).await.unwrap();
    assert_eq!((info.size_bytes, info.mode, info.uid, info.gid), (5, 0o604, 11, 22));
    assert!(info.modified_ms > 1_600_000_000_000);
    let listed = guest.list(&path("d"), None, None).await.unwrap();
    let names: Vec<_> =
        listed.entries.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
    assert_eq!(
        names,
        [("e", FileKind::Directory), ("f", FileKind::File), ("l", FileKind::Symlink)]
    );
    assert_eq!(listed.entries[2].target.as_deref(), Some("f"));
    let page = guest.list(&path("d"), None, Some(2)).await.unwrap();
    assert_eq!((page.entries.len(), page.next.as_deref()), (2, Some("f")));
    guest.rename(&path("d/f"), &path("d/g")).await.unwrap();
    assert_eq!(guest.stat(&path("d/f")).await.unwrap_err().code, ErrorCode::NotFound);
    let full = guest.remove(&path("d"), false).await.unwrap_err();
    assert_eq!(full.code, ErrorCode::AlreadyExists);
    guest.remove(&path("d"), true).await.unwrap();
    assert_eq!(guest.remove(&path("d"), true).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(guest.remove("/", true).await.unwrap_err().code, ErrorCode::InvalidPath);
}

async fn expect(events: &mut Receiver<WatchEvent>, kind: WatchKind, path: &str) {
    loop {
        let event = events.recv().await.expect("it still watches");
        if (&event.kind, event.path.as_str()) == (&kind, path) {
            return;
        }
    }
}

#[tokio::test]
async fn changes_are_told_also_in_directories_that_are_new() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let top = workspace.path("top");
    std::fs::create_dir_all(workspace.path("top/old")).unwrap();
    let mut events = guest.watch(&top, true).await.unwrap();
    std::fs::write(workspace.path("top/old/f"), "x").unwrap();
    expect(&mut events, WatchKind::Created, "old/f").await;
    expect(&mut events, WatchKind::Modified, "old/f").await;
    // Made so fast that most of it is there before anything can watch it.
    std::fs::create_dir_all(workspace.path("top/n/e/w")).unwrap();
    std::fs::write(workspace.path("top/n/e/w/file"), "x").unwrap();
    expect(&mut events, WatchKind::Created, "n/e/w/file").await;
    std::fs::rename(workspace.path("top/n/e"), workspace.path("top/moved")).unwrap();
    expect(&mut events, WatchKind::Renamed, "n/e").await;
    expect(&mut events, WatchKind::Renamed, "moved").await;
    expect(&mut events, WatchKind::Created, "moved/w/file").await;
    std::fs::remove_file(workspace.path("top/moved/w/file")).unwrap();
    expect(&mut events, WatchKind::Removed, "moved/w/file").await;
    std::fs::set_permissions(workspace.path("top/old/f"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    expect(&mut events, WatchKind::Attributes, "old/f").await;
    // Not through links.
    symlink("/etc", workspace.path("top/etc")).unwrap();
    expect(&mut events, WatchKind::Created, "etc").await;
    assert!(guest.watch("/nonexistent", true).await.is_err());
    // One file alone.
    let mut events = guest.watch(&workspace.path("top/old/f"), false).await.unwrap();
    std::fs::write(workspace.path("top/old/f"), "y").unwrap();
    expect(&mut events, WatchKind::Modified, "").await;
}

#[tokio::test]
async fn a_watcher_that_sleeps_is_told_that_it_missed_something() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let top = workspace.path("top");
    std::fs::create_dir(&top).unwrap();
    let mut events = guest.watch(&top, false).await.unwrap();
    let line = format!(
        "cd {top} && python3 -c 'import os\nfor i in range(60000):\n p=\"{}%d\"%i\n open(p,\"w\").close(); os.unlink(p)'",
        "n".repeat(120)
    );
    assert_eq!(run(&guest, sh(&line)).await.result.exit_code, Some(0));
    expect(&mut events, WatchKind::Overflow, "").await;
}
