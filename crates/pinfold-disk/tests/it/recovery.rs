//! What a `kill -9` leaves, made by hand, and what the next start makes of it.

use std::collections::HashSet;

use pinfold_disk::{DiskKind, Pool};
use pinfold_types::{ErrorCode, Mode, config::PoolKind};

use crate::support::{Ground, Home, limits};

const MIB: u64 = 1 << 20;

fn half_states(ground: Ground) {
    let home = Home::new(ground);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    for id in ["ws_kept", "ws_unknown", "ws_half", "ws_going", "ws_swapped"] {
        let disk = pool.create(id, &limit, 1).expect("create");
        std::fs::write(disk.path.join("upper/0/name"), id).expect("write");
    }
    pool.snapshot("ws_kept", "snap_kept", pinfold_disk::Mounted::Still).expect("snapshot");
    pool.snapshot("ws_kept", "snap_unknown", pinfold_disk::Mounted::Still).expect("snapshot");
    drop(pool);
    let at = |path: &str| home.pool_path().join(path);
    // Killed while making, while removing, and between a restore's exchange and its clean-up.
    std::fs::rename(at("disks/ws_half"), at("partial/0/ws_half~77.0")).expect("rename");
    std::fs::rename(at("disks/ws_going"), at("trash/ws_going~77.1")).expect("rename");
    std::fs::rename(at("disks/ws_swapped"), at("partial/15/ws_kept~77.2")).expect("rename");
    // And something that no code of ours makes.
    std::fs::create_dir_all(at("partial/3/stray/deeper")).expect("mkdir");
    std::fs::write(at("partial/3/stray/deeper/file"), "x").expect("write");
    std::fs::write(at("disks/not-a-directory"), "x").expect("write");

    let pool = home.open();
    let partial: HashSet<String> = pool
        .list()
        .expect("list")
        .into_iter()
        .filter(|entry| entry.kind == DiskKind::Partial)
        .map(|entry| entry.id)
        .collect();
    assert_eq!(partial, ["ws_half", "ws_going", "ws_kept", "stray"].map(String::from).into());

    let keep: HashSet<String> = ["ws_kept", "snap_kept", "ws_absent"].map(String::from).into();
    let actions = pool.reclaim(&keep).expect("reclaim");
    let mut said: Vec<(&str, &str)> = actions
        .iter()
        .filter(|action| action.kind == "disk" && action.object != "quota groups")
        .map(|action| (action.object.as_str(), action.action.as_str()))
        .collect();
    said.sort_unstable();
    assert_eq!(
        said,
        [
            ("snap_unknown", "reclaimed"),
            ("stray", "undone"),
            ("ws_going", "finished"),
            ("ws_half", "undone"),
            ("ws_kept", "undone"),
            ("ws_unknown", "reclaimed"),
        ]
    );
    let left: Vec<(String, DiskKind)> =
        pool.list().expect("list").into_iter().map(|entry| (entry.id, entry.kind)).collect();
    assert_eq!(
        left,
        [("ws_kept".to_owned(), DiskKind::Workspace), ("snap_kept".to_owned(), DiskKind::Snapshot)]
    );
    let name = std::fs::read_to_string(at("disks/ws_kept/upper/0/name")).expect("untouched");
    assert_eq!(name, "ws_kept");
    assert!(pool.reclaim(&keep).expect("reclaim").is_empty(), "nothing is left to do");
}

#[test]
fn half_states_are_reclaimed_on_btrfs() {
    half_states(Ground::BtrfsLoop);
}

#[test]
fn half_states_are_reclaimed_on_xfs() {
    half_states(Ground::Xfs);
}

#[test]
fn half_states_are_reclaimed_on_ext4() {
    half_states(Ground::Ext4);
}

#[test]
fn reclaiming_while_disks_are_made_removes_none_of_them() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let limit = limits(&pool, 64 * MIB);
    let ids: Vec<String> = (0..200).map(|number| format!("ws_{number}")).collect();
    let keep: HashSet<String> = ids.iter().cloned().collect();
    pool.warm(8, &limit, 1).expect("warm");
    std::thread::scope(|scope| {
        let making = scope.spawn(|| {
            for id in &ids {
                pool.create(id, &limit, 1).expect("create");
            }
        });
        while !making.is_finished() {
            pool.reclaim(&keep).expect("reclaim");
        }
    });
    for id in &ids {
        pool.open_disk(id).expect("still there");
    }
}

#[test]
fn a_pool_keeps_its_kind() {
    let home = Home::new(Ground::Ext4);
    let mut config = home.config.clone();
    config.kind = PoolKind::Plain;
    let pool = Pool::open(&config, &home.path, Mode::Root).expect("plain");
    pool.create("ws_1", &limits(&pool, 0), 1).expect("create");
    drop(pool);
    // `auto` would now make a btrfs file and mount it over the disks.
    config.kind = PoolKind::Auto;
    let pool = Pool::open(&config, &home.path, Mode::Root).expect("still plain");
    pool.open_disk("ws_1").expect("still there");
    let findings = pool.measure();
    assert!(findings.iter().any(|finding| finding.check == "method"));
    drop(pool);
    config.kind = PoolKind::Reflink;
    let refused = Pool::open(&config, &home.path, Mode::Root).expect_err("ext4 cannot");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    config.kind = PoolKind::Btrfs;
    let refused = Pool::open(&config, &home.path, Mode::Root).expect_err("ext4 is not btrfs");
    assert!(refused.hint.is_some(), "{refused}");
    config.kind = PoolKind::BtrfsLoop;
    let refused = Pool::open(&config, &home.path, Mode::Root).expect_err("disks would be hidden");
    assert!(refused.message.contains("plain"), "{refused}");
    assert!(home.pool_path().join("disks/ws_1/upper/0").is_dir());
}

#[test]
fn a_pool_without_room_refuses_new_disks_and_keeps_the_old() {
    let home = Home::new(Ground::BtrfsLoop);
    let mut config = home.config.clone();
    config.loop_bytes = Some(512 * MIB);
    let pool = Pool::open(&config, &home.path, Mode::Root).expect("opens");
    let limit = limits(&pool, 64 * MIB);
    pool.create("ws_1", &limit, 1).expect("create");
    pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    drop(pool);
    config.min_free_bytes = 1 << 40;
    let pool = Pool::open(&config, &home.path, Mode::Root).expect("opens");
    for refused in [
        pool.create("ws_2", &limit, 1).map(drop),
        pool.clone_to("snap_1", "ws_2", &limit, 1).map(drop),
        pool.snapshot("ws_1", "snap_2", pinfold_disk::Mounted::Still).map(drop),
    ] {
        assert_eq!(refused.expect_err("no room").code, ErrorCode::DiskFull);
    }
    assert_eq!(pool.list().expect("list").len(), 2);
}

#[test]
fn opening_at_the_same_time_makes_one_pool() {
    let home = Home::new(Ground::BtrfsLoop);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| Pool::open(&home.config, &home.path, Mode::Root).expect("opens"))
            })
            .collect();
        let pools: Vec<Pool> =
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let limit = limits(&pools[0], 64 * MIB);
        pools[0].create("ws_1", &limit, 1).expect("create");
        pools[3].open_disk("ws_1").expect("the same pool");
    });
}
