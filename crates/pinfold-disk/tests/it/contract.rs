//! What holds for every method, tried on each filesystem.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

use pinfold_disk::{DiskKind, DiskLimits, Pool};
use pinfold_types::ErrorCode;
use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};

use crate::support::{Ground, Home, LIMIT, eventually, limits, shown, text, write};

const MIB: u64 = 1 << 20;

macro_rules! on_every_ground {
    ($($test:ident;)*) => {
        mod btrfs_loop { $(#[test] fn $test() { super::$test(super::Ground::BtrfsLoop) })* }
        mod btrfs { $(#[test] fn $test() { super::$test(super::Ground::Btrfs) })* }
        mod xfs { $(#[test] fn $test() { super::$test(super::Ground::Xfs) })* }
        mod ext4 { $(#[test] fn $test() { super::$test(super::Ground::Ext4) })* }
    };
}

on_every_ground! {
    a_disk_is_made_listed_and_removed;
    a_limit_stops_writes_or_is_refused;
    a_limit_changes_live;
    a_snapshot_never_changes;
    clones_and_sources_do_not_see_each_other;
    a_copy_keeps_everything_overlay_needs;
    a_restore_puts_back_what_was;
    warm_disks_are_taken_and_replaced;
    two_hundred_disks_come_and_go;
    a_deep_tree_is_removed;
    the_doctor_measures;
}

fn ids(pool: &Pool, kind: DiskKind) -> Vec<String> {
    let entries = pool.list().expect("list").into_iter();
    entries.filter(|entry| entry.kind == kind).map(|entry| entry.id).collect()
}

fn nothing_partial(pool: &Pool) {
    eventually("the trash is empty", || ids(pool, DiskKind::Partial).is_empty());
}

fn a_disk_is_made_listed_and_removed(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let disk = pool.create("ws_1", &limit, 2).expect("create");
    for slot in 0..2 {
        let upper = disk.path.join(format!("upper/{slot}"));
        assert!(disk.path.join(format!("work/{slot}")).is_dir());
        let meta = std::fs::metadata(&upper).expect("the slot");
        assert_eq!(meta.mode() & 0o7777, 0o755, "it is what `/` looks like inside");
        assert_eq!((meta.uid(), meta.gid()), (0, 0));
    }
    assert_eq!(
        std::fs::metadata(home.pool_path().join("disks")).expect("dir").mode() & 0o777,
        0o700
    );
    let taken = pool.create("ws_1", &limit, 1).expect_err("taken");
    assert_eq!(taken.code, ErrorCode::AlreadyExists);
    disk.prepare_slots(4).expect("more slots");
    assert!(disk.path.join("upper/3").is_dir());
    assert_eq!(disk.prepare_slots(65).expect_err("too many").code, ErrorCode::InvalidArgument);
    assert_eq!(ids(&pool, DiskKind::Workspace), ["ws_1"]);
    assert_eq!(pool.open_disk("ws_2").expect_err("missing").code, ErrorCode::NotFound);
    assert_eq!(pool.usage("ws_2").expect_err("missing").code, ErrorCode::NotFound);

    pool.remove("ws_1").expect("remove");
    assert!(!disk.path.exists());
    pool.remove("ws_1").expect("remove is idempotent");
    pool.remove("never").expect("also for what never was");
    nothing_partial(&pool);
    pool.create("ws_1", &limit, 1).expect("the id is free again");
}

fn a_limit_stops_writes_or_is_refused(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = DiskLimits { bytes: Some(32 * MIB), inodes: None };
    if let Err(why) = pool.enforceable(LIMIT) {
        assert!(why.contains("mend"), "{why}");
        let refused = pool.create("ws_1", &limit, 1).expect_err("refused, not ignored");
        assert_eq!(refused.code, ErrorCode::CannotEnforce);
        assert!(refused.hint.is_some());
        pool.create("ws_1", &DiskLimits::default(), 1).expect("without a limit");
        let refused = pool.set_limits("ws_1", &limit).expect_err("refused, not ignored");
        assert_eq!(refused.code, ErrorCode::CannotEnforce);
        pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
        let refused = pool.clone_to("snap_1", "ws_2", &limit, 1).expect_err("refused");
        assert_eq!(refused.code, ErrorCode::CannotEnforce);
        return;
    }
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    assert_eq!(pool.limits("ws_1").expect("limits"), limit);
    assert!(!pool.is_full("ws_1"));
    write(&disk.path.join("upper/0/a"), 20 << 20).expect("fits");
    let error = write(&disk.path.join("upper/0/b"), 20 << 20).expect_err("does not fit");
    let errno = rustix::io::Errno::from_io_error(&error).expect("an errno");
    assert!(matches!(errno, rustix::io::Errno::DQUOT | rustix::io::Errno::NOSPC), "{error}");
    assert!(pool.is_full("ws_1"), "{:?}", pool.usage("ws_1"));
    std::fs::remove_file(disk.path.join("upper/0/b")).expect("a full disk can be cleaned");
    pool.sync().expect("sync");
    assert!(!pool.is_full("ws_1"), "{:?}", pool.usage("ws_1"));
    write(&disk.path.join("upper/0/c"), 4 << 20).expect("room again");
    // Others are not touched by it.
    let other = pool.create("ws_2", &limit, 1).expect("create");
    write(&other.path.join("upper/0/a"), 20 << 20).expect("fits");
}

fn a_limit_changes_live(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    if pool.enforceable(LIMIT).is_err() {
        // Refusal is the contract there; the test above has it.
        return assert!(
            pool.set_limits("ws_1", &DiskLimits { bytes: Some(MIB), inodes: None }).is_err()
        );
    }
    let disk = pool.create("ws_1", &limits(&pool, 16 * MIB), 1).expect("create");
    let file = std::fs::File::create(disk.path.join("upper/0/open")).expect("held open");
    write(&disk.path.join("upper/0/a"), 24 << 20).expect_err("too much");
    pool.set_limits("ws_1", &limits(&pool, 64 * MIB)).expect("raise");
    write(&disk.path.join("upper/0/a"), 24 << 20).expect("fits now");
    pool.set_limits("ws_1", &limits(&pool, 16 * MIB)).expect("below what is there");
    write(&disk.path.join("upper/0/b"), 1 << 20).expect_err("nothing more");
    pool.set_limits("ws_1", &DiskLimits::default()).expect("no limit");
    write(&disk.path.join("upper/0/b"), 32 << 20).expect("fits");
    drop(file);
}

fn fill(upper: &Path) {
    std::fs::write(upper.join("a"), "one").expect("write");
    std::fs::create_dir(upper.join("d")).expect("mkdir");
    std::fs::write(upper.join("d/b"), vec![7; 100_000]).expect("write");
}

fn a_snapshot_never_changes(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    let upper = disk.path.join("upper/0");
    fill(&upper);
    let made = pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    let expected = match ground {
        Ground::BtrfsLoop | Ground::Btrfs => "btrfs snapshot",
        Ground::Xfs => "reflink",
        Ground::Ext4 => "copy",
    };
    assert_eq!(made.method, expected);
    let again = pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect_err("taken");
    assert_eq!(again.code, ErrorCode::AlreadyExists);
    assert_eq!(
        pool.snapshot("ws_9", "snap_9", pinfold_disk::Mounted::Still)
            .expect_err("no such disk")
            .code,
        ErrorCode::NotFound
    );

    std::fs::write(upper.join("a"), "two").expect("write");
    std::fs::remove_file(upper.join("d/b")).expect("remove");
    if matches!(ground, Ground::BtrfsLoop | Ground::Btrfs) {
        let kept = home.pool_path().join("snapshots/snap_1/upper/0");
        let refused = std::fs::write(kept.join("a"), "no").expect_err("read-only to root too");
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    // It outlives its workspace.
    pool.remove("ws_1").expect("remove");
    assert_eq!(ids(&pool, DiskKind::Snapshot), ["snap_1"]);
    let back = pool.clone_to("snap_1", "ws_2", &limit, 1).expect("clone");
    assert_eq!(text(&back, "0/a"), "one");
    assert_eq!(
        std::fs::metadata(shown(&back, "0/d/b").expect("kept")).expect("stat").len(),
        100_000
    );
    pool.remove("snap_1").expect("remove");
    assert!(ids(&pool, DiskKind::Snapshot).is_empty());
    assert_eq!(text(&back, "0/a"), "one");
    nothing_partial(&pool);
}

fn clones_and_sources_do_not_see_each_other(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let disk = pool.create("ws_0", &limit, 1).expect("create");
    fill(&disk.path.join("upper/0"));
    let ids: Vec<String> = (1..=8).map(|number| format!("ws_{number}")).collect();
    let clones: Vec<_> = pool
        .clone_many("ws_0", &ids, &limit, 2)
        .into_iter()
        .map(|clone| clone.expect("a clone of a running disk"))
        .collect();
    assert_eq!(clones.iter().map(|clone| clone.id.clone()).collect::<Vec<_>>(), ids);
    for (number, clone) in clones.iter().enumerate() {
        assert!(clone.path.join("work/1").is_dir(), "slots that the source lacks are made");
        std::fs::write(clone.path.join("upper/0/a"), format!("clone {number}")).expect("write");
    }
    std::fs::write(disk.path.join("upper/0/a"), "source").expect("write");
    for (number, clone) in clones.iter().enumerate() {
        let text = std::fs::read_to_string(clone.path.join("upper/0/a")).expect("read");
        assert_eq!(text, format!("clone {number}"));
    }
    assert_eq!(std::fs::read_to_string(disk.path.join("upper/0/a")).expect("read"), "source");
    // One name taken, one source missing: an outcome for each.
    let some = pool.clone_many("ws_0", &["ws_1".into(), "ws_9".into()], &limit, 1);
    assert_eq!(some[0].as_ref().expect_err("taken").code, ErrorCode::AlreadyExists);
    assert!(some[1].is_ok());
    let missing = pool.clone_to("snap_7", "ws_10", &limit, 1).expect_err("no such source");
    assert_eq!(missing.code, ErrorCode::NotFound);
    nothing_partial(&pool);
}

/// Everything that matters of a tree: kind, mode, owner, times, contents, link count, attributes.
fn portrait(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("stat");
        let mut value = vec![0; 256];
        let opaque = rustix::fs::lgetxattr(&path, "user.overlay.opaque", &mut value[..]).is_ok();
        let contents = if meta.is_symlink() {
            std::fs::read_link(&path).expect("a link").display().to_string()
        } else if meta.is_file() {
            let bytes = std::fs::read(&path).expect("read");
            format!("{} bytes {:?}", bytes.len(), &bytes[..bytes.len().min(16)])
        } else {
            format!("device {}", meta.rdev())
        };
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let name = path.strip_prefix(root).expect("below").display().to_string();
        found.insert(
            name,
            format!(
                "{:o} {}:{} {}.{} {links} {opaque} {contents}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec()
            ),
        );
        if meta.is_dir() {
            let entries = std::fs::read_dir(&path).expect("list");
            waiting.extend(entries.map(|entry| entry.expect("entry").path()));
        }
    }
    found
}

fn a_copy_keeps_everything_overlay_needs(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 256 * MIB);
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    let upper = disk.path.join("upper/0");
    fill(&upper);
    let at = rustix::fs::CWD;
    let whiteout = upper.join("gone");
    rustix::fs::mknodat(at, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).expect("mknod");
    rustix::fs::mknodat(at, upper.join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("mkfifo");
    std::os::unix::fs::symlink("/etc/passwd", upper.join("link")).expect("symlink");
    std::os::unix::fs::symlink("nowhere", upper.join("d/dangling")).expect("symlink");
    std::fs::hard_link(upper.join("d/b"), upper.join("hard")).expect("link");
    rustix::fs::setxattr(upper.join("d"), "user.overlay.opaque", b"y", XattrFlags::empty())
        .expect("xattr");
    for (name, mode) in [("a", 0o4751), ("d", 0o1777)] {
        std::os::unix::fs::chown(upper.join(name), Some(1000), Some(1001)).expect("chown");
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(at, upper.join(name), mode, AtFlags::empty()).expect("chmod");
    }
    let sparse = std::fs::File::create(upper.join("sparse")).expect("create");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 200 << 20).expect("write");
    let before = portrait(&upper);

    pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    let clone = pool.clone_to("snap_1", "ws_2", &limit, 1).expect("clone");
    let copy = shown(&clone, "0/sparse").expect("copied");
    assert_eq!(portrait(copy.parent().expect("a slot")), before);
    let blocks = std::fs::metadata(copy).expect("stat").blocks();
    assert!(blocks * 512 < MIB, "holes stay holes: {blocks}");
    let usage = pool.usage("ws_2").expect("usage");
    assert!((100_000..8 * MIB).contains(&usage.referenced_bytes) || usage.referenced_bytes < MIB);
}

fn a_restore_puts_back_what_was(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    let upper = disk.path.join("upper/0");
    fill(&upper);
    pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    std::fs::write(upper.join("a"), "changed").expect("write");
    std::fs::write(upper.join("new"), "new").expect("write");
    pool.replace("ws_1", "snap_1").expect("restore");
    disk.prepare_slots(1).expect("as before every start");
    assert_eq!(text(&disk, "0/a"), "one");
    assert!(shown(&disk, "0/new").is_none());
    std::fs::write(upper.join("a"), "writable again").expect("write");
    assert_eq!(pool.limits("ws_1").expect("limits"), limit, "the limit stays");
    let missing = pool.replace("ws_1", "snap_2").expect_err("no such snapshot");
    assert_eq!(missing.code, ErrorCode::NotFound);
    assert_eq!(std::fs::read_to_string(upper.join("a")).expect("untouched"), "writable again");
    pool.replace("ws_1", "snap_1").expect("as often as one likes");
    assert_eq!(text(&disk, "0/a"), "one");
    nothing_partial(&pool);
}

fn warm_disks_are_taken_and_replaced(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    pool.warm(3, &limit, 2).expect("warm");
    eventually("three warm disks", || pool.warm_ready() == 3);
    let warm = ids(&pool, DiskKind::Warm);
    let inode = |path: &Path| std::fs::metadata(path.join("upper")).expect("stat").ino();
    let inodes: Vec<u64> =
        warm.iter().map(|name| inode(&home.pool_path().join("warm").join(name))).collect();
    let disk = pool.create("ws_1", &limit, 2).expect("create");
    if matches!(ground, Ground::Xfs | Ground::Ext4) {
        assert!(inodes.contains(&inode(&disk.path)), "a warm one was taken");
    }
    assert!(disk.path.join("work/1").is_dir());
    // Another limit and more slots than were prepared.
    let larger = limits(&pool, 128 * MIB);
    let disk = pool.create("ws_2", &larger, 3).expect("create");
    assert!(disk.path.join("work/2").is_dir());
    assert_eq!(pool.limits("ws_2").expect("limits"), larger);
    // A name that is taken costs no warm disk.
    pool.create("ws_2", &limit, 1).expect_err("taken");
    eventually("refilled", || pool.warm_ready() == 3);
    drop(pool);
    // The next server finds them.
    let pool = home.open();
    assert_eq!(pool.warm_ready(), 3);
    let disk = pool.create("ws_3", &limit, 2).expect("create");
    assert!(disk.path.join("work/1").is_dir());
    assert_eq!(pool.limits("ws_3").expect("limits"), limit);
    assert_eq!(pool.warm_ready(), 2);
    let kept = pool.reclaim(&["ws_1", "ws_2", "ws_3"].map(String::from).into()).expect("reclaim");
    assert!(kept.is_empty(), "warm disks are no leftovers: {kept:?}");
}

fn two_hundred_disks_come_and_go(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
    pool.create("ws_first", &limit, 2).expect("create");
    let before = descriptors();
    for number in 0..200 {
        pool.create(&format!("ws_{number}"), &limit, 2).expect("create");
    }
    assert_eq!(ids(&pool, DiskKind::Workspace).len(), 201);
    for number in 0..200 {
        pool.remove(&format!("ws_{number}")).expect("remove");
    }
    assert_eq!(ids(&pool, DiskKind::Workspace), ["ws_first"]);
    nothing_partial(&pool);
    assert_eq!(descriptors(), before, "descriptors leak");
    pool.close().expect("close");
    eventually("the loop device is given back", || home.device().is_none());
}

fn a_deep_tree_is_removed(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 256 * MIB);
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    // Deeper than PATH_MAX and than a process may have descriptors.
    let mut at: std::os::fd::OwnedFd =
        std::fs::File::open(disk.path.join("upper/0")).expect("open").into();
    for _ in 0..3000 {
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::mkdirat(&at, "deep", Mode::RWXU).expect("mkdir");
        at = rustix::fs::openat(&at, "deep", flags, Mode::empty()).expect("open");
    }
    rustix::fs::mkdirat(&at, "locked", Mode::empty()).expect("mkdir");
    drop(at);
    pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    pool.remove("ws_1").expect("remove");
    pool.remove("snap_1").expect("remove");
    nothing_partial(&pool);
}

#[expect(clippy::print_stdout, reason = "the costs are worth seeing")]
fn the_doctor_measures(ground: Ground) {
    let home = Home::new(ground);
    drop(home.open());
    let findings = Pool::findings(&home.config, &home.path, pinfold_types::Mode::Root);
    for finding in &findings {
        println!("{ground:?} {}: {} {:?}", finding.check, finding.detail, finding.mend);
        assert_eq!(finding.area, "disk");
    }
    let cost = findings.iter().find(|finding| finding.check == "cost").expect("measured");
    assert!(cost.detail.contains("snapshot") && cost.detail.contains(" us"), "{cost:?}");
    let left = home.open().list().expect("list");
    assert!(left.iter().all(|entry| entry.kind == DiskKind::Partial), "scratch disks: {left:?}");
    if matches!(ground, Ground::Xfs | Ground::Ext4) {
        assert!(findings.iter().any(|f| f.check == "better method" && f.mend.is_some()));
    }
}
