//! A removed disk that becomes an empty one again holds nothing of its former tenant.

use std::{
    collections::BTreeMap,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use pinfold_disk::{Disk, DiskKind, DiskLimits, Pool};
use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, XattrFlags};

use crate::support::{Ground, Home, eventually, limits, write};

const MIB: u64 = 1 << 20;

/// A pool that keeps one disk ready, and its limits.
fn house() -> (Home, Pool, DiskLimits) {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    pool.warm(1, &limit, 2).expect("warm");
    eventually("one is ready", || pool.warm_ready() == 1);
    (home, pool, limit)
}

fn subvolume(path: &Path) -> u64 {
    let directory = std::fs::File::open(path).expect("a disk");
    pinfold_sys::btrfs::subvolume_id(directory.as_fd()).expect("a subvolume")
}

/// Makes a disk and waits until the one taken for it has been replaced.
fn create(pool: &Pool, id: &str, limit: &DiskLimits) -> Disk {
    let disk = pool.create(id, limit, 2).expect("create");
    eventually("one is ready", || pool.warm_ready() >= 1);
    disk
}

/// Everything that can be seen of a tree: type, mode, owner, links, size, attributes, flags.
fn seen(top: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("stat");
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).expect("attributes");
        let file = std::fs::File::open(&path).expect("open");
        let flags = rustix::fs::ioctl_getflags(&file).expect("flags");
        let what = format!(
            "{:o} {}:{} links {} size {} attributes {length} flags {flags:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.size(),
        );
        let name = path.strip_prefix(top).expect("below").to_str().expect("plain").to_owned();
        all.insert(name, what);
        if meta.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("list").map(|e| e.expect("e").path()));
        }
    }
    all
}

/// What a hostile tenant leaves.
fn soil(disk: &Disk) {
    let upper = disk.path.join("upper/0");
    write(&upper.join("secret"), 3 << 20).expect("write");
    std::fs::hard_link(upper.join("secret"), upper.join("again")).expect("link");
    std::os::unix::fs::symlink("/etc/shadow", upper.join("link")).expect("symlink");
    rustix::fs::mknodat(CWD, upper.join("whiteout"), FileType::CharacterDevice, Mode::empty(), 0)
        .expect("whiteout");
    rustix::fs::mknodat(CWD, upper.join("pipe"), FileType::Fifo, Mode::empty(), 0).expect("pipe");
    let mut deep = upper.clone();
    for _ in 0..300 {
        deep.push("deeper");
        std::fs::create_dir(&deep).expect("mkdir");
    }
    std::fs::write(deep.join("bottom"), "x").expect("write");
    // The directories that the next tenant will see as its `/`.
    for slot in ["upper/0", "upper/1", "work/0"] {
        let path = disk.path.join(slot);
        for name in ["user.note", "trusted.overlay.opaque", "user.overlay.opaque"] {
            rustix::fs::setxattr(&path, name, b"y", XattrFlags::empty()).expect("attribute");
        }
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).expect("owner");
        rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(0o7777), AtFlags::empty())
            .expect("mode");
        let directory = std::fs::File::open(&path).expect("open");
        rustix::fs::ioctl_setflags(&directory, IFlags::NOCOW | IFlags::NOATIME).expect("flags");
    }
    std::fs::create_dir_all(disk.path.join("work/0/work/incompat/volatile")).expect("mkdir");
}

#[test]
fn nothing_of_the_former_tenant_is_found() {
    let (_home, pool, limit) = house();
    let fresh = create(&pool, "ws_fresh", &limit);
    let (as_new, charge) = (seen(&fresh.path), {
        pool.sync().expect("sync");
        pool.usage("ws_fresh").expect("usage")
    });
    let disk = create(&pool, "ws_1", &limit);
    let (subvolume_1, root) = (subvolume(&disk.path), std::fs::metadata(&disk.path).expect("stat"));
    soil(&disk);
    pool.set_limits("ws_1", &limits(&pool, 4 * MIB)).expect("a limit that is reached");
    pool.remove("ws_1").expect("remove");
    assert!(pool.open_disk("ws_1").is_err(), "its name is free at once");
    eventually("it is on the shelf", || pool.warm_ready() == 2);

    let next = pool.create("ws_2", &limit, 2).expect("create");
    assert_eq!(subvolume(&next.path), subvolume_1, "the emptied one was taken");
    assert_eq!(seen(&next.path), as_new);
    assert_eq!(std::fs::metadata(&next.path).expect("stat").mode(), root.mode());
    assert_eq!(pool.usage("ws_2").expect("usage"), charge);
    assert_eq!(pool.limits("ws_2").expect("limits"), limit);
    write(&next.path.join("upper/0/mine"), 60 << 20).expect("all of the room is its own");
    write(&next.path.join("upper/0/more"), 8 << 20).expect_err("and no more");
}

#[test]
fn a_disk_whose_room_is_used_up_is_emptied_too() {
    let (_home, pool, limit) = house();
    let small = limits(&pool, 8 * MIB);
    let disk = create(&pool, "ws_1", &small);
    let id = subvolume(&disk.path);
    write(&disk.path.join("upper/0/all"), 32 << 20).expect_err("full");
    for number in 0..200 {
        let _ = std::fs::write(disk.path.join(format!("upper/0/{number}")), [1; 3000]);
    }
    pool.remove("ws_1").expect("remove");
    eventually("it is on the shelf", || pool.warm_ready() == 2);
    let next = pool.create("ws_2", &limit, 2).expect("create");
    assert_eq!((subvolume(&next.path), pool.limits("ws_2").expect("limits")), (id, limit));
    write(&next.path.join("upper/0/mine"), 60 << 20).expect("it has the new limit");
}

#[test]
fn a_small_clone_becomes_an_empty_disk_with_all_of_its_limit() {
    let (_home, pool, limit) = house();
    let source = create(&pool, "ws_1", &limit);
    write(&source.path.join("upper/0/a"), 20 << 20).expect("write");
    let clone = pool.clone_to("ws_1", "ws_2", &limit, 2).expect("clone");
    let id = subvolume(&clone.path);
    write(&clone.path.join("upper/0/b"), 1 << 20).expect("write");
    pool.remove("ws_2").expect("remove");
    eventually("it is on the shelf", || pool.warm_ready() == 2);
    let next = pool.create("ws_3", &limit, 2).expect("create");
    assert_eq!(subvolume(&next.path), id, "the emptied one was taken");
    assert!(pool.usage("ws_3").expect("usage").referenced_bytes < MIB);
    write(&next.path.join("upper/0/mine"), 60 << 20).expect("nothing is inherited");
    assert_eq!(
        std::fs::metadata(source.path.join("upper/0/a")).expect("untouched").len(),
        20 << 20
    );
}

#[test]
fn what_cannot_be_as_new_is_removed() {
    let (home, mut pool, limit) = house();
    let mut gone = Vec::new();
    let mut next = |pool: &Pool, id: &str| {
        let disk = create(pool, id, &limit);
        gone.push(subvolume(&disk.path));
        disk
    };
    // Copied in this server's life, and in that of one before.
    let disk = next(&pool, "ws_source");
    write(&disk.path.join("upper/0/a"), 1 << 20).expect("write");
    pool.snapshot("ws_source", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    let disk = next(&pool, "ws_earlier");
    write(&disk.path.join("upper/0/a"), 1 << 20).expect("write");
    pool.snapshot("ws_earlier", "snap_2", pinfold_disk::Mounted::Still).expect("snapshot");
    drop(pool);
    pool = home.open();
    pool.warm(1, &limit, 2).expect("warm");
    // Too much to be worth it.
    let disk = next(&pool, "ws_many");
    for number in 0..2100 {
        std::fs::write(disk.path.join(format!("upper/0/{number}")), "").expect("write");
    }
    let disk = next(&pool, "ws_big");
    pool.set_limits("ws_big", &limits(&pool, 256 * MIB)).expect("room");
    write(&disk.path.join("upper/0/big"), 80 << 20).expect("write");
    // What may not be unlinked.
    let disk = next(&pool, "ws_stuck");
    std::fs::write(disk.path.join("upper/0/stuck"), "").expect("write");
    let stuck = std::fs::File::open(disk.path.join("upper/0/stuck")).expect("open");
    rustix::fs::ioctl_setflags(&stuck, IFlags::IMMUTABLE).expect("flags");
    // Somebody has a file open: it is not gone, and is charged.
    let disk = next(&pool, "ws_open");
    write(&disk.path.join("upper/0/open"), 1 << 20).expect("write");
    let _open = std::fs::File::open(disk.path.join("upper/0/open")).expect("open");

    for id in ["ws_source", "ws_earlier", "ws_many", "ws_big", "ws_stuck", "ws_open"] {
        pool.remove(id).expect("remove");
    }
    eventually("the trash is empty", || {
        let entries = pool.list().expect("list");
        !entries.iter().any(|entry| entry.kind == DiskKind::Partial)
    });
    for entry in std::fs::read_dir(home.pool_path().join("warm")).expect("list") {
        let ready = subvolume(&entry.expect("entry").path());
        assert!(!gone.contains(&ready), "{ready} of {gone:?}");
    }
    let kept = pool.clone_to("snap_2", "ws_copy", &limit, 2).expect("its snapshot stays");
    assert_eq!(std::fs::metadata(kept.path.join("upper/0/a")).expect("whole").len(), 1 << 20);
}

#[test]
fn the_stock_does_not_grow_without_end_and_a_crash_leaves_none_half_empty() {
    let (home, pool, limit) = house();
    for number in 0..40 {
        let disk = pool.create(&format!("ws_{number}"), &limit, 2).expect("create");
        std::fs::write(disk.path.join("upper/0/f"), "x").expect("write");
    }
    for number in 0..40 {
        pool.remove(&format!("ws_{number}")).expect("remove");
    }
    eventually("the trash is empty", || {
        let entries = pool.list().expect("list");
        !entries.iter().any(|entry| entry.kind == DiskKind::Partial)
    });
    let ready = pool.warm_ready();
    assert!((2..=13).contains(&ready), "{ready}");
    // Killed before it was on the shelf: nobody knows how far it came.
    let disk = create(&pool, "ws_half", &limit);
    std::fs::write(disk.path.join("upper/0/f"), "x").expect("write");
    drop(pool);
    let at = |path: &str| home.pool_path().join(path);
    std::fs::rename(at("disks/ws_half"), at("trash/ws_half~77.1")).expect("rename");
    std::fs::remove_dir(at("trash/ws_half~77.1/work/0")).expect("half emptied");
    let pool = home.open();
    let before = pool.warm_ready();
    let actions = pool.reclaim(&std::collections::HashSet::new()).expect("reclaim");
    assert!(actions.iter().any(|action| action.object == "ws_half"), "{actions:?}");
    assert_eq!(pool.warm_ready(), before);
    for number in 0..before {
        let disk = pool.create(&format!("ws_new_{number}"), &limit, 2).expect("create");
        let files = std::fs::read_dir(disk.path.join("upper/0")).expect("list").count();
        assert_eq!(files, 0);
    }
}
