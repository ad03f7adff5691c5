//! What only a btrfs pool does: its file, mount, quotas.

use std::path::Path;

use pinfold_disk::{DiskLimits, DiskUsage, Pool, PoolMethod};
use pinfold_types::{ErrorCode, Mode, limits::LimitKind};

use crate::support::{Ground, Home, eventually, limits, private_mounts, write};

const MIB: u64 = 1 << 20;

fn usage(pool: &Pool, id: &str) -> DiskUsage {
    pool.sync().expect("sync");
    pool.usage(id).expect("usage")
}

#[test]
fn a_pool_is_made_found_again_and_taken_down_without_a_trace() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    assert_eq!(pool.method(), PoolMethod::Btrfs);
    assert!(pool.describe().contains("simple quotas"), "{}", pool.describe());
    pool.create("ws_1", &limits(&pool, 64 * MIB), 2).expect("create");
    let device = home.device().expect("attached");
    drop(pool);

    // The server was killed: the mount stands, and is taken over as it is.
    let pool = home.open();
    assert_eq!(home.device().as_deref(), Some(device.as_str()));
    let disk = pool.open_disk("ws_1").expect("still there");
    assert!(disk.path.join("upper/1").is_dir() && disk.path.join("work/1").is_dir());
    pool.close().expect("close");
    eventually("the loop device is given back", || home.device().is_none());

    // A reboot: mounted anew, from the same file.
    let pool = home.open();
    pool.open_disk("ws_1").expect("still there");
    pool.close().expect("close");
    eventually("the loop device is given back", || home.device().is_none());
}

#[test]
fn a_half_made_file_is_made_anew_and_a_foreign_one_is_never_touched() {
    let home = Home::new(Ground::BtrfsLoop);
    // Killed during mkfs: the file has its first name still, and rubbish inside.
    write(&home.path.join("pool.btrfs.new"), 1 << 20).expect("write");
    home.open().close().expect("close");
    assert!(!home.path.join("pool.btrfs.new").exists());
    eventually("the loop device is given back", || home.device().is_none());

    let file = home.path.join("pool.btrfs");
    for foreign in [b"my thesis".to_vec(), vec![7; 200_000]] {
        std::fs::write(&file, &foreign).expect("write");
        let refused = Pool::open(&home.config, &home.path, Mode::Root).expect_err("foreign");
        assert_eq!(refused.code, ErrorCode::Conflict, "{refused}");
        assert!(refused.hint.is_some());
        assert_eq!(std::fs::read(&file).expect("read"), foreign, "it was touched");
    }
    // Another's btrfs, by its label.
    std::fs::write(&file, b"").expect("empty");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .expect("open")
        .set_len(512 * MIB)
        .expect("size");
    crate::support::run("mkfs.btrfs", &["-q", "-L", "photos", file.to_str().expect("plain")]);
    let refused = Pool::open(&home.config, &home.path, Mode::Root).expect_err("foreign");
    assert!(refused.message.contains("photos"), "{refused}");

    // An empty file and a hole hold nothing to lose.
    std::fs::write(&file, b"").expect("empty");
    home.open().close().expect("close");
}

#[test]
fn something_else_mounted_there_is_refused() {
    let home = Home::new(Ground::BtrfsLoop);
    std::fs::create_dir(home.pool_path()).expect("make");
    rustix::mount::mount(
        "none",
        home.pool_path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .expect("mount");
    let refused = Pool::open(&home.config, &home.path, Mode::Root).expect_err("foreign mount");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.contains("tmpfs"), "{refused}");
    assert!(!home.path.join("pool.btrfs").exists(), "nothing was made");
}

#[test]
fn a_missing_mkfs_is_named_with_its_package() {
    private_mounts();
    let home = tempfile::tempdir().expect("a home");
    let empty = tempfile::tempdir().expect("an empty directory");
    // Hides the program from this thread only.
    for directory in ["/usr/sbin", "/sbin"] {
        if Path::new(directory).join("mkfs.btrfs").exists() {
            rustix::mount::mount_bind(empty.path(), directory).expect("hide");
        }
    }
    let config = pinfold_types::config::PoolConfig {
        kind: pinfold_types::config::PoolKind::BtrfsLoop,
        ..Default::default()
    };
    let refused = Pool::open(&config, home.path(), Mode::Root).expect_err("no mkfs");
    assert_eq!(refused.hint.as_deref(), Some("apt-get install btrfs-progs"));
    // `auto` takes what is there, and doctor says what it misses.
    let auto = pinfold_types::config::PoolConfig::default();
    let pool = Pool::open(&auto, home.path(), Mode::Root).expect("plain");
    assert_ne!(pool.method(), PoolMethod::Btrfs);
    drop(pool);
    let findings = Pool::findings(&auto, home.path(), Mode::Root);
    assert!(
        findings.iter().any(|f| f.mend.as_deref() == Some("apt-get install btrfs-progs")),
        "{findings:#?}"
    );
}

#[test]
fn a_clone_counts_what_it_came_with_against_its_limit() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    write(&disk.path.join("upper/0/a"), 40 << 20).expect("fits");
    let before = usage(&pool, "ws_1").referenced_bytes;
    assert!((40 * MIB..44 * MIB).contains(&before), "{before}");

    pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    let clone = pool.clone_to("snap_1", "ws_2", &limit, 1).expect("clone");
    let used = usage(&pool, "ws_2");
    assert!((40 * MIB..44 * MIB).contains(&used.referenced_bytes), "{used:?}");
    assert!(used.exclusive_bytes.expect("known") < MIB, "{used:?}");
    write(&clone.path.join("upper/0/b"), 16 << 20).expect("fits");
    write(&clone.path.join("upper/0/c"), 16 << 20).expect_err("40 + 16 + 16 are more than 64");
    assert!(pool.is_full("ws_2"), "{:?}", pool.usage("ws_2"));

    // A generation later nothing is forgotten.
    let third = pool.clone_to("ws_2", "ws_3", &limit, 1).expect("clone of a clone");
    write(&third.path.join("upper/0/d"), 16 << 20).expect_err("its ancestors wrote it full");
    let larger = limits(&pool, 128 * MIB);
    pool.set_limits("ws_3", &larger).expect("live");
    write(&third.path.join("upper/0/d"), 16 << 20).expect("room now");
    assert_eq!(pool.limits("ws_3").expect("limits"), larger);

    // Less than it came with cannot be promised.
    let refused = pool.set_limits("ws_3", &limits(&pool, 16 * MIB)).expect_err("too small");
    assert_eq!(refused.code, ErrorCode::InvalidArgument);
    let refused = pool.clone_to("snap_1", "ws_4", &limits(&pool, 16 * MIB), 1).expect_err("small");
    assert_eq!(refused.code, ErrorCode::InvalidArgument);
    assert!(pool.list().expect("list").iter().all(|entry| entry.id != "ws_4"));
}

#[test]
fn a_full_disk_can_be_cleaned_and_started_again() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let limit = limits(&pool, 32 * MIB);
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    assert!(!pool.is_full("ws_1"));
    let upper = disk.path.join("upper/0");
    for number in 0..100 {
        if write(&upper.join(number.to_string()), 1 << 20).is_err() {
            break;
        }
    }
    let mut small = 0;
    while small < 10_000 && std::fs::write(upper.join(format!("s{small}")), [1; 3000]).is_ok() {
        small += 1;
    }
    assert!(pool.is_full("ws_1"), "{:?}", pool.usage("ws_1"));
    // The next start: overlay makes its work directory anew.
    disk.prepare_slots(1).expect("room to start");
    let lower = home.path.join("lower");
    let merged = home.path.join("merged");
    std::fs::create_dir(&lower).and_then(|()| std::fs::create_dir(&merged)).expect("directories");
    let options = std::ffi::CString::new(format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        lower.display(),
        upper.display(),
        disk.path.join("work/0").display()
    ))
    .expect("plain");
    rustix::mount::mount(
        "overlay",
        &merged,
        "overlay",
        rustix::mount::MountFlags::empty(),
        options.as_c_str(),
    )
    .expect("mounts");
    std::fs::remove_file(merged.join("0")).expect("a full disk can be cleaned");
    pool.sync().expect("sync");
    std::fs::write(merged.join("new"), b"again").expect("and written to");
    rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::DETACH).expect("unmount");
    // The reserve is bounded: starting for ever gains nothing.
    for _ in 0..64 {
        disk.prepare_slots(1).expect("start");
        let _ = write(&upper.join("more"), 64 << 20);
    }
    let used = usage(&pool, "ws_1").referenced_bytes;
    assert!(used <= (32 + 64 + 4) * MIB, "{used}");
}

#[test]
fn inodes_are_refused_with_the_reason() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let why = pool.enforceable(LimitKind::Inodes).expect_err("btrfs has none");
    assert!(why.contains("disk_bytes"), "{why}");
    let asked = DiskLimits { bytes: None, inodes: Some(1000) };
    let refused = pool.create("ws_1", &asked, 1).expect_err("refused");
    assert_eq!(refused.code, ErrorCode::CannotEnforce);
    assert!(pool.list().expect("list").is_empty(), "nothing was made");
}

#[test]
fn quota_groups_and_space_do_not_grow_with_disks_that_are_gone() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    pool.create("ws_base", &limit, 1).expect("create");
    let free = pool.space().expect("space").free_bytes;
    for round in 0..4 {
        for number in 0..50 {
            let id = format!("ws_{round}_{number}");
            let disk = pool.clone_to("ws_base", &id, &limit, 1).expect("clone");
            std::fs::write(disk.path.join("upper/0/f"), vec![1; 100_000]).expect("write");
        }
        for number in 0..50 {
            pool.remove(&format!("ws_{round}_{number}")).expect("remove");
        }
    }
    let root = std::fs::File::open(home.pool_path()).expect("open");
    let root = std::os::fd::AsFd::as_fd(&root);
    eventually("the kernel has cleaned up", || {
        pool.sync().expect("sync");
        let keep = ["ws_base".to_owned()].into();
        pool.reclaim(&keep).expect("reclaim");
        pinfold_sys::btrfs::qgroup_ids(root, 1 << 16).expect("ids").len() <= 3
    });
    eventually("the space is back", || {
        pool.sync().expect("sync");
        pool.space().expect("space").free_bytes + 8 * MIB >= free
    });
    assert_eq!(pool.list().expect("list").len(), 1);
}

#[test]
fn what_was_acknowledged_survives_a_power_loss() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let disk = pool.create("ws_1", &limit, 1).expect("create");
    write(&disk.path.join("upper/0/kept"), 300_000).expect("written and fsynced");
    pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    write(&disk.path.join("upper/0/later"), 300_000).expect("written and fsynced");
    // What the file below holds now is what a power loss leaves: no unmount, no last commit.
    let crashed = tempfile::tempdir().expect("another home");
    crate::support::run(
        "cp",
        &[
            "--sparse=always",
            home.path.join("pool.btrfs").to_str().expect("plain"),
            crashed.path().join("pool.btrfs").to_str().expect("plain"),
        ],
    );
    pool.close().expect("close");
    eventually("the loop device is given back", || home.device().is_none());
    let pool = Pool::open(&home.config, crashed.path(), Mode::Root).expect("opens");
    let disk = pool.open_disk("ws_1").expect("the disk");
    for file in ["kept", "later"] {
        let bytes = std::fs::read(disk.path.join("upper/0").join(file)).expect("fsynced");
        assert_eq!(bytes.len(), 300_000);
    }
    let clone = pool.clone_to("snap_1", "ws_2", &limit, 1).expect("the snapshot");
    assert!(clone.path.join("upper/0/kept").exists());
    assert!(!clone.path.join("upper/0/later").exists());
    pool.close().expect("close");
}
