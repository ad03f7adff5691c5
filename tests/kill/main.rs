//! `kill -9` of server, launcher, guests and commands at random instants under mixed load.
//!
//! Every acknowledged operation must have lasting effect, whatever was killed; afterwards nothing
//! is left of what was removed. A seeded sample runs with the other tests; `make soak` sets
//! `PINFOLD_KILLS` (and `PINFOLD_SEED` to repeat a run).

mod control;
mod model;
mod victims;
mod worker;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use testkit::Home;

use crate::{model::Random, victims::Victim, worker::Worker};

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_left() {
    let kills = number("PINFOLD_KILLS", 24);
    let seed = number("PINFOLD_SEED", 20_261_122);
    println!("{kills} kills, seed {seed}");
    let home = Arc::new(Home::new());
    // The pool and the image are made once; kills from here on meet work, not the first start.
    worker::first_start(&home);
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..3)
        .map(|index| {
            let mut worker = Worker::new(
                index,
                Arc::clone(&home),
                Random::new(seed.wrapping_add(index)),
                Arc::clone(&acknowledged),
            );
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    worker.step();
                }
                worker
            })
        })
        .collect();

    let mut random = Random::new(seed ^ 0x9e37_79b9);
    let mut tally = std::collections::BTreeMap::<Victim, u64>::new();
    let mut done = 0;
    while done < kills {
        // Not a wait for something: the instant of the kill is what is drawn.
        std::thread::sleep(Duration::from_millis(100 + random.below(1400)));
        if workers.iter().any(std::thread::JoinHandle::is_finished) {
            break;
        }
        let victim = Victim::draw(&mut random);
        if victim.kill(&home, &mut random) {
            *tally.entry(victim).or_default() += 1;
            done += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let workers: Vec<Worker> =
        workers.into_iter().map(|handle| handle.join().expect("a worker's checks hold")).collect();

    let names = Mutex::new(Vec::new());
    for mut worker in workers {
        worker.settle();
        names.lock().expect("one thread").extend(worker.names());
    }
    println!("killed {tally:?}; {} operations acknowledged", acknowledged.load(Ordering::Relaxed));
    assert!(acknowledged.load(Ordering::Relaxed) > kills, "too little was going on");
    worker::end_with_nothing_left(&home, &names.into_inner().expect("one thread"));
}
