//! Ids are names, never paths, whatever is tried.

use pinfold_disk::{DiskLimits, Pool};
use pinfold_types::{ErrorCode, Mode, config::PoolConfig, config::PoolKind};
use proptest::prelude::*;

fn pool() -> (tempfile::TempDir, Pool) {
    let home = tempfile::tempdir().expect("a home");
    let config = PoolConfig { kind: PoolKind::Plain, min_free_bytes: 0, ..Default::default() };
    let pool = Pool::open(&config, home.path(), Mode::Root).expect("a plain pool");
    (home, pool)
}

/// Everything below the home but the pool's own five shelves' contents, and the disks.
fn outside(home: &std::path::Path) -> Vec<String> {
    let names = |path: &std::path::Path| -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .expect("list")
            .map(|entry| entry.expect("entry").path().display().to_string())
            .collect();
        names.sort();
        names
    };
    [names(home), names(&home.join("pool"))].concat()
}

#[test]
fn ids_that_are_no_names_are_refused_everywhere_and_change_nothing() {
    let (home, pool) = pool();
    let none = DiskLimits::default();
    pool.create("ws_1", &none, 1).expect("create");
    let before = outside(home.path());
    let long = "x".repeat(65);
    for id in [
        "",
        ".",
        "..",
        "/",
        "../x",
        "a/b",
        "a/../b",
        "/etc",
        "a\0b",
        "a b",
        "~",
        "ws_1~2",
        "-x",
        "_x",
        ".x",
        "ä",
        "a\n",
        "a.b",
        "disks/ws_1",
        "..\\x",
        &long,
    ] {
        let refusals = [
            pool.create(id, &none, 1).map(drop),
            pool.open_disk(id).map(drop),
            pool.set_limits(id, &none),
            pool.remove(id),
            pool.snapshot("ws_1", id, pinfold_disk::Mounted::Still).map(drop),
            pool.snapshot(id, "snap_1", pinfold_disk::Mounted::Still).map(drop),
            pool.clone_to("ws_1", id, &none, 1).map(drop),
            pool.clone_to(id, "ws_2", &none, 1).map(drop),
            pool.replace("ws_1", id),
            pool.replace(id, "snap_1"),
            pool.usage(id).map(drop),
            pool.limits(id).map(drop),
        ];
        for refused in refusals {
            assert_eq!(refused.expect_err(id).code, ErrorCode::InvalidArgument, "{id:?}");
        }
        assert!(!pool.is_full(id));
    }
    assert_eq!(outside(home.path()), before);
    assert_eq!(pool.list().expect("list").len(), 1);
}

#[test]
fn a_link_in_the_place_of_a_disk_is_not_followed() {
    let (home, pool) = pool();
    let victim = tempfile::tempdir().expect("a victim");
    std::fs::write(victim.path().join("precious"), "x").expect("write");
    std::os::unix::fs::symlink(victim.path(), home.path().join("pool/disks/ws_1")).expect("link");
    assert!(pool.open_disk("ws_1").is_err());
    assert!(pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).is_err());
    // A link inside a disk is removed as a link.
    let disk = pool.create("ws_2", &DiskLimits::default(), 1).expect("create");
    std::os::unix::fs::symlink(victim.path(), disk.path.join("upper/0/out")).expect("link");
    pool.snapshot("ws_2", "snap_2", pinfold_disk::Mounted::Still).expect("snapshot");
    pool.remove("ws_2").expect("remove");
    pool.remove("snap_2").expect("remove");
    drop(pool);
    assert!(victim.path().join("precious").exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    /// An id is taken exactly when it follows the rule, and then its disk lies on its shelf.
    #[test]
    fn ids_follow_one_rule(id in "(\\PC{0,8}|[a-zA-Z0-9_-]{0,70}|[./a~\\x00-]{0,6})") {
        let (home, pool) = pool();
        let rule = !id.is_empty()
            && id.len() <= 64
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            && id.as_bytes()[0].is_ascii_alphanumeric();
        let before = outside(home.path());
        let made = pool.create(&id, &DiskLimits::default(), 1);
        prop_assert_eq!(made.is_ok(), rule);
        if let Ok(disk) = made {
            let shelf = home.path().join("pool/disks");
            prop_assert_eq!(disk.path.parent(), Some(shelf.as_path()));
        }
        prop_assert_eq!(outside(home.path()), before);
        prop_assert_eq!(pool.remove(&id).is_ok(), rule);
        prop_assert!(std::fs::read_dir(home.path().join("pool/disks")).expect("list").next().is_none());
    }
}
