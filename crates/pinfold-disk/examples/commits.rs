//! What copies and removals of disks cost a btrfs pool, in time and in commits of the filesystem.
//!
//! As root: `cargo run --example commits -p pinfold-disk`.

#![expect(clippy::print_stdout, reason = "a table for people")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use pinfold_disk::{DiskLimits, Pool};
use pinfold_types::{
    Mode, Result,
    config::{PoolConfig, PoolKind},
};

const LIMITS: DiskLimits = DiskLimits { bytes: Some(1 << 30), inodes: None };

/// The transaction that the filesystem is in: one more with every commit.
fn generation(pool: &Path) -> u64 {
    let directory = std::fs::File::open(pool).expect("the pool");
    let uuid = pinfold_sys::btrfs::filesystem_uuid(std::os::fd::AsFd::as_fd(&directory))
        .expect("a btrfs pool");
    std::fs::read_to_string(format!("/sys/fs/btrfs/{uuid}/generation"))
        .expect("sysfs")
        .trim()
        .parse()
        .expect("a number")
}

fn row(what: &str, pool: &Path, work: impl FnOnce()) {
    let (before, begun) = (generation(pool), Instant::now());
    work();
    println!("{what:<52} {:>10.1?} {:>5} commits", begun.elapsed(), generation(pool) - before);
}

fn main() -> Result<()> {
    let home = tempfile::Builder::new().prefix("pfcommits").tempdir().expect("a home");
    let config = PoolConfig {
        kind: PoolKind::BtrfsLoop,
        path: None,
        loop_bytes: Some(4 << 30),
        min_free_bytes: 0,
    };
    let pool = Pool::open(&config, home.path(), Mode::Root)?;
    let path = home.path().join("pool");
    let disk = pool.create("source", &LIMITS, 2)?;
    for file in 0..100 {
        std::fs::write(disk.path.join(format!("upper/0/{file}")), vec![1; 20_000]).expect("write");
    }
    pool.sync()?;
    for round in 0..3 {
        let ids: Vec<String> = (0..100).map(|number| format!("c_{round}_{number}")).collect();
        row("100 clones at once", &path, || {
            for made in pool.clone_many("source", &ids, &LIMITS, 2) {
                made.expect("a clone");
            }
        });
        row("their removal", &path, || {
            for id in &ids {
                pool.remove(id).expect("removed");
            }
        });
        row("  until nothing is left of them", &path, || settle(&path));
    }
    for number in 0..5 {
        row("one clone", &path, || {
            pool.clone_to("source", &format!("one_{number}"), &LIMITS, 2).expect("a clone");
        });
    }
    row("200 empty disks made and removed", &path, || {
        for number in 0..200 {
            pool.create(&format!("e_{number}"), &LIMITS, 2).expect("a disk");
            pool.remove(&format!("e_{number}")).expect("removed");
        }
    });
    row("  until nothing is left of them", &path, || settle(&path));
    // With a stock of empty disks, removed ones go back to it.
    pool.warm(4, &LIMITS, 2)?;
    row("200 disks made, written to and removed, with a stock", &path, || {
        for number in 0..200 {
            let disk = pool.create(&format!("w_{number}"), &LIMITS, 2).expect("a disk");
            std::fs::write(disk.path.join("upper/0/file"), "x").expect("write");
            pool.remove(&format!("w_{number}")).expect("removed");
        }
    });
    row("  until nothing is left of them", &path, || settle(&path));
    pool.close()
}

/// Waits until the kernel has cleaned away what was removed.
fn settle(pool: &Path) {
    let mut still = Instant::now();
    let mut last = generation(pool);
    let directory = std::fs::File::open(pool).expect("the pool");
    pinfold_sys::btrfs::sync(std::os::fd::AsFd::as_fd(&directory)).expect("sync");
    while still.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(10));
        if generation(pool) != last {
            last = generation(pool);
            still = Instant::now();
        }
    }
}
