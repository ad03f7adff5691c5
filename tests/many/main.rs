//! Many workspaces at once, and many one after another, without growth.

use std::collections::BTreeSet;

use testkit::Server;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Pages of a process that it alone holds, in KiB.
fn private_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().count()
}

/// Mounts of this home in our view; other tests have their own.
fn mounts(server: &Server) -> usize {
    server.leftovers().mounts.len()
}

#[test]
fn two_hundred_live_at_once_each_answers() {
    let count = number("PINFOLD_MANY", 200);
    let server = Server::start();
    let names: Vec<String> = (0..count).map(|index| format!("m{index}")).collect();
    for name in &names {
        server.pinfold(&["create", name, "--memory", "32M", "--disk", "64M"]).ok();
    }
    std::thread::scope(|scope| {
        for chunk in names.chunks(count.div_ceil(4)) {
            let server = &server;
            scope.spawn(move || {
                for name in chunk {
                    let said = server
                        .pinfold(&["exec", "--no-stdin", "-c", name, "--", "hostname; echo alive"])
                        .ok();
                    assert_eq!(said, format!("{name}\nalive\n"));
                }
            });
        }
    });
    let running = server.pinfold(&["ls", "--json"]).json();
    let items = running.get("items").unwrap_or(&running).as_array().cloned().unwrap_or_default();
    let pids: BTreeSet<i64> = items.iter().filter_map(|item| item["pid"].as_i64()).collect();
    assert_eq!(pids.len(), count, "each has a first process of its own");
    println!("server: {} KiB private with {count} live", private_kib(server.pid()));
    server.stop();
}

#[test]
fn one_after_another_leaves_no_growth() {
    let rounds = number("PINFOLD_ROUNDS", 60);
    let server = Server::start();
    let round = || {
        server.pinfold(&["run", "--no-stdin", "--memory", "32M", "--", "true"]).ok();
    };
    // What is made once, on first use, is made before the first look.
    for _ in 0..10 {
        round();
    }
    let before = (private_kib(server.pid()), descriptors(server.pid()), mounts(&server));
    for _ in 0..rounds {
        round();
    }
    let after = (private_kib(server.pid()), descriptors(server.pid()), mounts(&server));
    println!("KiB, descriptors, mounts: {before:?} before, {after:?} after {rounds}");
    assert!(after.1 <= before.1 + 4, "descriptors grew from {} to {}", before.1, after.1);
    assert_eq!(after.2, before.2, "mounts grew");
    // A leak of one KiB a workspace would show; the allocator's own slack must not.
    let allowed = before.0 + 4096 + u64::try_from(rounds).expect("a count fits") / 2;
    assert!(after.0 <= allowed, "memory grew from {} to {} KiB", before.0, after.0);
    server.stop();
}
