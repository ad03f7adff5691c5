//! Times, printed (`cargo nextest run -p pinfold-disk bench --no-capture`). Only what would be
//! wrong by an order of magnitude fails: the machine is shared.

use std::time::{Duration, Instant};

use crate::support::{Ground, Home, eventually, limits, median, timed, write};

const MIB: u64 = 1 << 20;

#[test]
fn times_on_btrfs() {
    let home = Home::new(Ground::BtrfsLoop);
    let pool = home.open();
    let limit = limits(&pool, 10 << 30);
    let show = |what: &str, times: Vec<Duration>| {
        let (count, middle) = (times.len(), median(times));
        println!("{what:<44} {middle:>12.1?}   median of {count}");
        middle
    };

    let mut cold = Vec::new();
    for number in 0..200 {
        timed(&mut cold, || pool.create(&format!("cold_{number}"), &limit, 2)).expect("create");
    }
    let cold = show("create, cold", cold);
    let mut usage = Vec::new();
    for number in 0..200 {
        timed(&mut usage, || pool.usage(&format!("cold_{number}"))).expect("usage");
    }
    show("usage", usage);
    let mut remove = Vec::new();
    for number in 0..200 {
        timed(&mut remove, || pool.remove(&format!("cold_{number}"))).expect("remove");
    }
    show("remove", remove);

    pool.warm(64, &limit, 2).expect("warm");
    let mut warm = Vec::new();
    for round in 0..4 {
        eventually("warm disks", || pool.warm_ready() == 64);
        for number in 0..32 {
            let id = format!("warm_{round}_{number}");
            timed(&mut warm, || pool.create(&id, &limit, 2)).expect("create");
        }
    }
    let warm = show("create, warm", warm);
    pool.warm(0, &limit, 2).expect("no more");

    let disk = pool.create("small", &limit, 1).expect("create");
    std::fs::write(disk.path.join("upper/0/f"), [1; 4096]).expect("write");
    let mut small = Vec::new();
    for number in 0..100 {
        timed(&mut small, || {
            pool.snapshot("small", &format!("snap_s{number}"), pinfold_disk::Mounted::Still)
        })
        .expect("snapshot");
    }
    show("snapshot, a small disk", small);

    let disk = pool.create("big", &limit, 1).expect("create");
    for directory in 0..100 {
        let path = disk.path.join(format!("upper/0/{directory}"));
        std::fs::create_dir(&path).expect("mkdir");
        let block = vec![u8::try_from(directory).expect("below 100"); 50_000];
        for file in 0..200 {
            std::fs::write(path.join(file.to_string()), &block).expect("write");
        }
    }
    let start = Instant::now();
    pool.snapshot("big", "snap_dirty", pinfold_disk::Mounted::Still).expect("snapshot");
    println!("{:<44} {:>12.1?}   once", "snapshot, 1 GB not yet on the disk", start.elapsed());
    pool.sync().expect("sync");
    let mut big = Vec::new();
    for number in 0..50 {
        timed(&mut big, || {
            pool.snapshot("big", &format!("snap_b{number}"), pinfold_disk::Mounted::Still)
        })
        .expect("snapshot");
    }
    let big = show("snapshot, 1 GB and 20,000 files", big);
    let mut clone = Vec::new();
    for number in 0..50 {
        timed(&mut clone, || pool.clone_to("snap_b0", &format!("clone_{number}"), &limit, 1))
            .expect("clone");
    }
    show("clone of it", clone);
    let mut hundred = Vec::new();
    for round in 0..5 {
        let ids: Vec<String> = (0..100).map(|number| format!("many_{round}_{number}")).collect();
        let made = timed(&mut hundred, || pool.clone_many("snap_b0", &ids, &limit, 1));
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }
    let hundred = show("100 clones of it", hundred);
    let mut restore = Vec::new();
    for _ in 0..20 {
        timed(&mut restore, || pool.replace("clone_0", "snap_b1")).expect("restore");
    }
    show("restore", restore);
    let start = Instant::now();
    for round in 0..5 {
        for number in 0..100 {
            pool.remove(&format!("many_{round}_{number}")).expect("remove");
        }
    }
    println!("{:<44} {:>12.1?}   once", "remove of 500 clones", start.elapsed());
    write(&disk.path.join("upper/0/last"), 1 << 20).expect("the pool still works");

    assert!(warm < cold * 4 && cold < Duration::from_millis(20), "create: {warm:?}, {cold:?}");
    assert!(big < Duration::from_millis(200), "a snapshot copies: {big:?}");
    assert!(hundred < Duration::from_secs(5), "clones copy: {hundred:?}");
    assert!(pool.usage("clone_1").expect("usage").referenced_bytes > 900 * MIB);
}

#[test]
fn times_on_xfs_beside_cp() {
    let home = Home::new(Ground::Xfs);
    let pool = home.open();
    let limit = limits(&pool, 10 << 30);
    let disk = pool.create("big", &limit, 1).expect("create");
    for directory in 0..50 {
        let path = disk.path.join(format!("upper/0/{directory}"));
        std::fs::create_dir(&path).expect("mkdir");
        for file in 0..100 {
            std::fs::write(path.join(file.to_string()), vec![1; 20_000]).expect("write");
        }
    }
    pool.sync().expect("sync");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..5 {
        let target = home.path.join(format!("cp_{number}"));
        let arguments = ["-a", "--reflink=always"];
        timed(&mut theirs, || {
            crate::support::run(
                "cp",
                &[
                    arguments[0],
                    arguments[1],
                    disk.path.to_str().expect("plain"),
                    target.to_str().expect("plain"),
                ],
            );
        });
        timed(&mut ours, || pool.clone_to("big", &format!("clone_{number}"), &limit, 1))
            .expect("clone");
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("clone of 5,000 files by reflink {ours:.1?}, cp -a --reflink {theirs:.1?}");
    assert!(ours < theirs * 3, "{ours:?} beside {theirs:?}");
}
