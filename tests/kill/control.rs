//! `kill -9` of the server at random instants, with callers who hold tokens, sessions, quotas and
//! keys: what it acknowledged outlives it, and what it counted is as it was.
//!
//! A seeded sample runs with the other tests; `make soak` sets `PINFOLD_CONTROL_KILLS` (and
//! `PINFOLD_SEED` to repeat a run).

mod after;
mod agent;
mod hasty;
mod people;
mod promise;
mod seat;

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use testkit::{Server, ServerOptions, until};

use self::{
    agent::{Agent, MOST},
    seat::{Ask, Seat},
};
use crate::{model::Random, number, worker};

/// Callers with a token.
const AGENTS: u64 = 3;

/// Only the hasty caller's class runs dry: a kill writes off what its bucket had set aside.
fn config() -> String {
    let (burst, per_second) = (hasty::BURST, hasty::PER_SECOND);
    let freely = "{ per_second = 1000000, burst = 1000000 }";
    format!(
        "[rates.tokens]\nexec = {{ per_second = {per_second}, burst = {burst} }}\n\
         create = {freely}\ndefault = {freely}\nstream = {freely}\n"
    )
}

#[test]
fn what_the_control_plane_acknowledged_outlives_its_server() {
    let kills = number("PINFOLD_CONTROL_KILLS", 8);
    let seed = number("PINFOLD_SEED", 20_261_122);
    println!("{kills} kills of the server, seed {seed}");
    let options = ServerOptions {
        config: config(),
        listen: vec!["127.0.0.1:0".into()],
        ..Default::default()
    };
    let mut server = Server::with(options);
    let seat = Arc::new(Seat::new(server.socket()));
    seat.starts();
    let mut starts = 1;
    answers(&server, &seat, starts);

    let stop = Arc::new(AtomicBool::new(false));
    let agents: Vec<_> = callers(&seat, seed)
        .into_iter()
        .map(|mut agent| {
            let stop = Arc::clone(&stop);
            // What it begins with is made before anybody is killed.
            agent.begin();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    agent.step();
                }
                agent
            })
        })
        .collect();
    let hasty = std::thread::spawn({
        let (seat, stop) = (Arc::clone(&seat), Arc::clone(&stop));
        move || hasty::run(&seat, &stop)
    });

    let mut random = Random::new(seed ^ 0x5851_f42d);
    let mut early = 0;
    for _ in 1..kills {
        let failed =
            || hasty.is_finished() || agents.iter().any(std::thread::JoinHandle::is_finished);
        // On a machine that is busy a life would else end before anything was done in it.
        let enough = seat.changes() + random.below(8);
        until("so many changes", Duration::from_mins(2), || {
            (seat.changes() >= enough || failed()).then_some(())
        });
        // Not a wait for something: the instant of the kill is what is drawn.
        std::thread::sleep(Duration::from_millis(random.below(500)));
        if failed() {
            break;
        }
        kill(&mut server, &seat);
        if random.below(5) == 0 {
            early += 1;
            kill_while_it_starts(&server, &seat, &mut random);
        }
        starts += 1;
        start_again(&mut server, &seat, starts);
    }
    stop.store(true, Ordering::Relaxed);
    let counted = hasty.join().expect("the hasty caller's checks hold");
    let mut agents: Vec<Agent> =
        agents.into_iter().map(|one| one.join().expect("a caller's checks hold")).collect();
    // Whatever nobody waited for has been done after this, or never will be. The second, so that
    // what was left at the first of two has met its end too.
    for _ in 0..2 {
        kill(&mut server, &seat);
        starts += 1;
        start_again(&mut server, &seat, starts);
    }
    for agent in &mut agents {
        agent.look_at_left();
        agent.settle();
        if agent.token.is_some() {
            agent.settle_quota();
        }
    }
    let told = agents.iter().flat_map(|agent| &agent.told).chain(&counted.told);
    let told: Vec<promise::Told> = told.cloned().collect();
    let mut tally = BTreeMap::<_, u64>::new();
    for told in told.iter().filter(|told| told.ok) {
        *tally.entry(told.operation).or_default() += 1;
    }
    println!(
        "{} changes acknowledged, {early} kills more of a server that began, {} buckets emptied",
        tally.values().sum::<u64>(),
        counted.emptied
    );
    println!("{tally:?}");
    assert!(u64::try_from(told.len()).expect("a count") > kills, "too little was going on");
    after::audit(&server, &seat, &told);
    let names = after::names(&seat);
    worker::end_with_nothing_left(server.home(), &names);
    // The pool stays mounted for the next start, once.
    let left = server.leftovers();
    let pool = server.home().path().join("pool");
    assert!(left.mounts.iter().all(|mount| *mount == pool), "{left:?}");
    assert!(left.mounts.len() <= 1 && left.loops.len() <= 1, "{left:?}");
}

/// The owner, and callers with a quota.
fn callers(seat: &Arc<Seat>, seed: u64) -> Vec<Agent> {
    let token = |name: &str| {
        let body = json!({ "name": name, "quota": { "workspaces": MOST } });
        let made = Ask::new("POST", "/api/v1/tokens").json(&body).send(seat, None);
        let made = made.expect("nobody kills yet");
        assert!(made.is_ok(), "{}", made.text());
        made.json()["token"].as_str().expect("a text").to_owned()
    };
    (0..=AGENTS)
        .map(|index| {
            let stem = if index == 0 { "owner".to_owned() } else { format!("a{index}") };
            let token = (index > 0).then(|| token(&stem));
            Agent::new(&stem, token, Arc::clone(seat), Random::new(seed.wrapping_add(index)))
        })
        .collect()
}

fn kill(server: &mut Server, seat: &Seat) {
    server.kill();
    seat.gone();
}

fn start_again(server: &mut Server, seat: &Seat, starts: usize) {
    seat.starts();
    server.start_again();
    answers(server, seat, starts);
}

/// Waits for the address that this start prints, the `starts`-th.
fn answers(server: &Server, seat: &Seat, starts: usize) {
    let address = until("a TCP address", Duration::from_mins(1), || {
        let all = server.tcp();
        all.get(starts - 1).copied()
    });
    seat.answers(address);
}

/// What a server does first, finding everything again, is cut off too.
fn kill_while_it_starts(server: &Server, seat: &Seat, random: &mut Random) {
    seat.starts();
    let mut child = server
        .command()
        .args(["up", "--listen", "127.0.0.1:0", "--metrics", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pinfold up");
    std::thread::sleep(Duration::from_millis(random.below(600)));
    child.kill().expect("our child");
    child.wait().expect("our child");
    seat.gone();
}
