//! What `pinfold doctor` says about disks: the method, its cost as measured here, and the mend
//! where a better one could be had.

use std::{fmt::Write as _, path::Path, time::Instant};

use pinfold_types::{
    ByteSize, Mode,
    api::{Finding, Verdict},
    config::{PoolConfig, PoolKind},
    limits::LimitKind,
};

use crate::{
    btrfs::image,
    error::MAKE_ROOM,
    open,
    pool::Pool,
    types::{DiskLimits, Mounted, PoolMethod, PoolSpace},
};

/// Less free space than this, in a pool of twenty times as much, is nearly none.
const NEARLY_NONE: u64 = 1 << 30;

/// How many snapshots are timed.
const SAMPLES: usize = 5;

fn finding(check: &str, verdict: Verdict, detail: String, mend: Option<String>) -> Finding {
    Finding { area: "disk".into(), check: check.into(), verdict, detail, mend }
}

pub(crate) fn findings(config: &PoolConfig, home: &Path, mode: Mode) -> Vec<Finding> {
    match Pool::open(config, home, mode) {
        Ok(pool) => {
            let mut found = measure(&pool);
            found.extend(better(config, home, mode, &pool));
            found
        }
        Err(error) => {
            vec![finding("pool", Verdict::Missing, error.message.clone(), error.hint)]
        }
    }
}

pub(crate) fn measure(pool: &Pool) -> Vec<Finding> {
    let mut found = Vec::new();
    let verdict = match pool.method() {
        PoolMethod::Btrfs => Verdict::Ok,
        PoolMethod::Reflink | PoolMethod::Plain => Verdict::Degraded,
    };
    found.push(finding("method", verdict, pool.describe(), None));
    found.push(match cost(pool) {
        Ok(detail) => finding("cost", Verdict::Ok, detail, None),
        Err(error) => finding("cost", Verdict::Missing, error.message.clone(), error.hint),
    });
    for kind in [LimitKind::Disk, LimitKind::Inodes] {
        found.push(match pool.enforceable(kind) {
            Ok(by) => finding(kind.field(), Verdict::Ok, format!("enforced by {by}"), None),
            Err(why) => {
                let (why, mend) = match why.split_once("; mend: ") {
                    Some((why, mend)) => (why.to_owned(), Some(mend.to_owned())),
                    None => (why, None),
                };
                finding(kind.field(), Verdict::Degraded, why, mend)
            }
        });
    }
    found.push(match pool.space() {
        Ok(space) => room(space, pool.min_free_bytes()),
        Err(error) => finding("free space", Verdict::Missing, error.message, None),
    });
    found
}

/// Whether there is room for workspaces.
fn room(space: PoolSpace, least: u64) -> Finding {
    let (free, total) = (space.free_bytes, space.total_bytes);
    let mut detail = format!("{} of {} free", ByteSize(free), ByteSize(total));
    let verdict = if free < least {
        let _infallible = write!(detail, ", less than pool.min_free_bytes ({})", ByteSize(least));
        Verdict::Missing
    } else if free < NEARLY_NONE.min(total / 20) {
        Verdict::Degraded
    } else {
        Verdict::Ok
    };
    let mend = (verdict != Verdict::Ok).then(|| MAKE_ROOM.to_owned());
    finding("free space", verdict, detail, mend)
}

/// Makes, snapshots, clones and removes scratch disks, and says what each took.
fn cost(pool: &Pool) -> Result<String, pinfold_types::Error> {
    let mut times: [Vec<u128>; 4] = Default::default();
    let stamp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    for sample in 0..SAMPLES {
        let name = |what: &str| format!("doctor-{what}-{stamp}-{sample}");
        let (disk, snapshot, clone) = (name("disk"), name("snapshot"), name("clone"));
        let tried = || -> Result<[u128; 3], pinfold_types::Error> {
            let limits = DiskLimits::default();
            let start = Instant::now();
            let made = pool.create(&disk, &limits, 1)?;
            let create = start.elapsed().as_micros();
            // A read-only disk is no disk, and without sub-ids' help this file cannot be written.
            let _ = std::fs::write(made.path.join("upper/0/scratch"), [1; 4096]);
            let start = Instant::now();
            pool.snapshot(&disk, &snapshot, Mounted::No)?;
            let snap = start.elapsed().as_micros();
            let start = Instant::now();
            pool.clone_to(&snapshot, &clone, &limits, 1)?;
            Ok([create, snap, start.elapsed().as_micros()])
        };
        let tried = tried();
        let start = Instant::now();
        for id in [&disk, &snapshot, &clone] {
            pool.remove(id)?;
        }
        let remove = start.elapsed().as_micros() / 3;
        let [create, snap, clone] = tried?;
        for (list, value) in times.iter_mut().zip([create, snap, clone, remove]) {
            list.push(value);
        }
    }
    let [create, snapshot, clone, remove] = times.map(|mut list| {
        list.sort_unstable();
        list[list.len() / 2]
    });
    Ok(format!(
        "create {create} us, snapshot {snapshot} us, clone {clone} us, remove {remove} us \
         (medians of {SAMPLES}, scratch disks)"
    ))
}

/// Why a better method is not used here.
fn better(config: &PoolConfig, home: &Path, mode: Mode, pool: &Pool) -> Option<Finding> {
    if pool.method() == PoolMethod::Btrfs {
        return None;
    }
    let (detail, mend) = if mode == Mode::User {
        (
            "snapshots of running workspaces in constant time take a btrfs pool, which takes root"
                .to_owned(),
            "run the server as root".to_owned(),
        )
    } else if !matches!(config.kind, PoolKind::Auto | PoolKind::BtrfsLoop) {
        (
            "the configuration asks for this kind of pool".to_owned(),
            "set pool.kind to auto and pool.path to a new directory".to_owned(),
        )
    } else if let Err(error) = image::available(&open::image_file(home)) {
        let error = pinfold_types::Error::from(error);
        (error.message, error.hint.unwrap_or_default())
    } else {
        (
            "the pool was made before a btrfs pool file was possible, and holds disks".to_owned(),
            "remove the workspaces and the pool directory, then start again".to_owned(),
        )
    };
    Some(finding("better method", Verdict::Degraded, detail, Some(mend)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_without_room_is_not_fine() {
        let verdict = |free_bytes, least| {
            let found = room(PoolSpace { total_bytes: 100 << 30, free_bytes }, least);
            assert_eq!(found.mend.is_some(), found.verdict != Verdict::Ok, "{found:?}");
            found.verdict
        };
        assert_eq!(verdict(50 << 30, 512 << 20), Verdict::Ok);
        assert_eq!(verdict(511 << 20, 512 << 20), Verdict::Missing);
        assert_eq!(verdict(900 << 20, 512 << 20), Verdict::Degraded);
        assert_eq!(verdict(4 << 10, 0), Verdict::Degraded);
    }
}
