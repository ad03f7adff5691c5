//! What a copy of 1 GB in 20,000 files costs a pool that shares no data, beside `cp -a`.
//!
//! As root: `cargo run --example copies -p pinfold-disk [DIRECTORY]`.

#![expect(clippy::print_stdout, reason = "a table for people")]

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use pinfold_disk::{DiskLimits, Pool};
use pinfold_types::{
    Mode, Result,
    config::{PoolConfig, PoolKind},
};

fn timed(times: &mut Vec<Duration>, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    times.push(begun.elapsed());
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    println!("{what:<32} median {:>8.1?} of {times:.0?}", times[times.len() / 2]);
}

fn main() -> Result<()> {
    let below = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let home = tempfile::Builder::new().prefix("pfcopies").tempdir_in(below).expect("a home");
    let config =
        PoolConfig { kind: PoolKind::Plain, path: None, loop_bytes: None, min_free_bytes: 0 };
    let pool = Pool::open(&config, home.path(), Mode::Root)?;
    let disk = pool.create("source", &DiskLimits::default(), 1)?;
    for directory in 0..100 {
        let path = disk.path.join(format!("upper/0/{directory}"));
        std::fs::create_dir(&path).expect("mkdir");
        for file in 0..200 {
            std::fs::write(path.join(file.to_string()), vec![7; 50_000]).expect("write");
        }
    }
    pool.sync()?;
    let (mut cp, mut clone, mut snapshot, mut sync) = (vec![], vec![], vec![], vec![]);
    for round in 0..3 {
        let target = home.path().join("cp");
        timed(&mut cp, || {
            let done = Command::new("cp").arg("-a").arg(&disk.path).arg(&target).status();
            assert!(done.expect("cp").success());
        });
        timed(&mut sync, || pool.sync().expect("sync"));
        std::fs::remove_dir_all(&target).expect("removed");
        pool.sync()?;
        timed(&mut clone, || {
            pool.clone_to("source", "clone", &DiskLimits::default(), 1).expect("a clone");
        });
        pool.remove("clone")?;
        pool.sync()?;
        let id = format!("snap_{round}");
        timed(&mut snapshot, || {
            drop(pool.snapshot("source", &id, pinfold_disk::Mounted::Still).expect("a snapshot"));
        });
        pool.remove(&id)?;
        pool.sync()?;
    }
    row("cp -a", cp);
    row("  sync after it", sync);
    row("clone (a copy)", clone);
    row("snapshot (a copy and a sync)", snapshot);
    pool.close()
}
