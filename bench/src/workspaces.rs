//! Making, entering and holding workspaces.

use std::{
    path::{Path, PathBuf},
    sync::Barrier,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;
use testkit::{Server, ServerOptions};

use crate::{
    Options,
    client::{self, Connection, exec_request, run_request},
    floor::Floor,
    machine::pss_bytes,
    peers::Peers,
    report::Report,
    root::Root,
    stats::{Times, millis, ratio},
    timer,
};

/// Name of the shared root filesystem as an image.
pub(crate) const IMAGE: &str = "bench";

/// A server with the shared root filesystem imported.
pub(crate) fn server(options: &Options, root: &Root, config: &str) -> Server {
    let server = Server::with(ServerOptions {
        config: config.to_owned(),
        program: Some(options.pinfold.clone()),
        ..ServerOptions::default()
    });
    let tree = root.tree().display().to_string();
    server.pinfold(&["image", "import", "--format", "directory", &tree, IMAGE]).ok();
    // The first of everything pays for what is made once.
    server.pinfold(&["run", "--image", IMAGE, "--", "/bin/true"]).ok();
    server
}

/// New workspaces: one after another, fifty at once, and as a whole command.
pub(crate) fn create(
    options: &Options,
    root: &Root,
    floor: &Floor,
    peers: &Peers,
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = server(options, root, "");
    let socket = server.socket();

    report.section(
        "Create, start, first output",
        "at most 2 × the floor program, and ahead of crun and runc",
    );
    let count = options.runs(300);
    let bare = floor.create(count)?;
    report.first("floor program", &bare);
    let ours = runs(&socket, count)?;
    report.times("pinfold, over the server's socket, durable record included", &ours);
    let on_demand = self::server(options, root, "[workspaces]\nwarm_boots = 0\n");
    let cold = runs(&on_demand.socket(), count)?;
    on_demand.stop();
    report.times("the same with `warm_boots = 0`: nothing is booted in advance", &cold);
    report.first("plain posix_spawn", &floor.spawn(count)?);
    let mut others = Vec::new();
    for peer in peers.all() {
        match peers.create(peer, "echo", options.runs(peer.count)) {
            Ok(runs) => {
                report.first(&format!("{} ({})", peer.name, peer.manner), &runs);
                if matches!(peer.name, "crun" | "runc") {
                    others.push(runs.first.median());
                }
            }
            Err(err) => report.note(format!("{} failed here: {err:#}", peer.name)),
        }
    }
    let which = ["", " with nothing booted in advance"];
    for (times, which) in [&ours, &cold].into_iter().zip(which) {
        let to_floor = ratio(times.median(), bare.first.median());
        report.verdict(to_floor <= 2.0, &format!("{to_floor:.2} × the floor{which}"));
        let ahead = others.len() == 2 && others.iter().all(|other| times.median() < *other);
        report.verdict(ahead, &format!("ahead of crun and runc{which}"));
    }

    report.section("The same, 50 at once", "p99 at most 100 ms, no failure");
    let bare = floor.burst(50, options.runs(10))?;
    report.first("floor program", &bare);
    let (times, failures) = at_once(&socket, 50, options.runs(10))?;
    report.times("pinfold", &times);
    report.verdict(
        failures == 0 && times.p99() <= Duration::from_millis(100),
        &format!(
            "p99 {}, {failures} failures; the floor program's p99 is {}",
            millis(times.p99()),
            millis(bare.first.p99())
        ),
    );

    whole_command(options, &server, peers, report)?;
    server.stop();
    Ok(())
}

/// `echo` in a new workspace, one after another, to its output.
fn runs(socket: &Path, count: usize) -> anyhow::Result<Times> {
    let request = run_request(IMAGE, &["/bin/echo", "ok"]);
    let mut first = Vec::new();
    for _ in 0..count {
        timer::pause();
        first.push(client::stream(socket, "/run", &request)?.first);
    }
    Ok(Times::new(first))
}

/// `pinfold run -- true` as a shell sees it.
fn whole_command(
    options: &Options,
    server: &Server,
    peers: &Peers,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.section("`pinfold run -- true`, the whole command", "at most 3 ms more than crun");
    let crun = match peers.get("crun").map(|crun| peers.create(crun, "true", options.runs(100))) {
        Some(Ok(runs)) => {
            report.times("crun run", &runs.end);
            Some(runs.end.median())
        }
        Some(Err(err)) => {
            report.note(format!("crun failed here: {err:#}"));
            None
        }
        None => None,
    };
    let home = server.home().path().display().to_string();
    let words: Vec<String> = ["--home", &home, "run", "--image", IMAGE, "--", "/bin/true"]
        .iter()
        .map(|word| (*word).to_owned())
        .collect();
    let mut times = Vec::new();
    for _ in 0..options.runs(100) {
        timer::pause();
        times.push(timer::one(&options.pinfold, &words)?.1);
    }
    let ours = Times::new(times);
    report.times("pinfold run", &ours);
    for name in ["bwrap", "nsjail", "runc", "podman"] {
        if let Some(peer) = peers.get(name)
            && let Ok(runs) = peers.create(peer, "true", options.runs(peer.count))
        {
            report.times(name, &runs.end);
        }
    }
    if let Some(crun) = crun {
        let more = ours.median().saturating_sub(crun);
        report
            .verdict(more <= Duration::from_millis(3), &format!("{} more than crun", millis(more)));
    }
    Ok(())
}

/// `many` runs begin together, `rounds` times.
fn at_once(socket: &Path, many: usize, rounds: usize) -> anyhow::Result<(Times, usize)> {
    let mut times = Vec::new();
    let mut failures = 0;
    for _ in 0..rounds {
        let barrier = Barrier::new(many);
        let results: Vec<anyhow::Result<Duration>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..many)
                .map(|_| {
                    scope.spawn(|| {
                        let request = run_request(IMAGE, &["/bin/echo", "ok"]);
                        barrier.wait();
                        Ok(client::stream(socket, "/run", &request)?.first)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        for result in results {
            match result {
                Ok(time) => times.push(time),
                Err(_) => failures += 1,
            }
        }
    }
    ensure!(!times.is_empty(), "all of {many} at once failed");
    Ok((Times::new(times), failures))
}

/// A command in a workspace that runs.
pub(crate) fn exec(
    options: &Options,
    root: &Root,
    floor: &Floor,
    peers: &Peers,
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = server(options, root, "");
    report.section("Exec of `true` in a running workspace", "at most 2 × the floor");
    let count = options.runs(500);
    let bare = floor.enter(count)?;
    report.times("floor: setns, fork, exec", &bare.end);
    server.pinfold(&["create", "held", "--image", IMAGE]).ok();
    let request = exec_request(&["/bin/true"]);
    let mut times = Vec::new();
    for _ in 0..count {
        timer::pause();
        times.push(client::stream(&server.socket(), "/workspaces/held/exec", &request)?.end);
    }
    let ours = Times::new(times);
    report.times("pinfold, over the server's socket", &ours);
    for peer in peers.all() {
        match peers.exec(peer, options.runs(100)) {
            Ok(Some(runs)) => report.times(&format!("{} exec", peer.name), &runs.end),
            Ok(None) => {}
            Err(err) => report.note(format!("{} exec failed here: {err:#}", peer.name)),
        }
    }
    let to_floor = ratio(ours.median(), bare.end.median());
    report.verdict(to_floor <= 2.0, &format!("{to_floor:.2} × the floor"));
    server.stop();
    Ok(())
}

/// Create and destroy, back to back.
pub(crate) fn rate(
    options: &Options,
    root: &Root,
    floor: &Floor,
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = server(options, root, "");
    let seconds = if options.quick { 2 } else { 10 };
    report.section("Create and destroy, a second", "at least half of the floor program's rate");
    for streams in [1, 4] {
        let bare = floor.rate(streams, seconds)?;
        report.value(&format!("floor program, {streams} streams"), &format!("{bare:.0}"), "1.00");
        let ours = churn(&server.socket(), streams, Duration::from_secs(seconds))?;
        let part = ours / bare;
        let name = format!("pinfold, {streams} streams");
        report.value(&name, &format!("{ours:.0}"), &format!("{part:.2}"));
        report.verdict(part >= 0.5, &format!("{part:.2} of the floor's rate, {streams} streams"));
    }
    server.stop();
    Ok(())
}

fn churn(socket: &Path, streams: usize, time: Duration) -> anyhow::Result<f64> {
    let counts: Vec<anyhow::Result<u32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..streams)
            .map(|_| {
                scope.spawn(move || {
                    let mut connection = Connection::open(socket)?;
                    let began = Instant::now();
                    let mut done = 0;
                    while began.elapsed() < time {
                        let made = connection.call(
                            "POST",
                            "/workspaces",
                            Some(&json!({ "image": IMAGE })),
                        )?;
                        let id = made["id"].as_str().context("a workspace has an id")?;
                        connection.call("DELETE", &format!("/workspaces/{id}"), None)?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let mut sum = 0;
    for count in counts {
        sum += count?;
    }
    Ok(f64::from(sum) / time.as_secs_f64())
}

/// What idle workspaces cost.
pub(crate) fn memory(options: &Options, root: &Root, report: &mut Report) -> anyhow::Result<()> {
    let server = server(options, root, "");
    let many = if options.quick { 20 } else { 100 };
    report.section(
        "Memory of an idle workspace (PSS)",
        "at most 2 MiB for each workspace, at most 200 KiB of the server for each",
    );
    let mut connection = Connection::open(&server.socket())?;
    let before = pss_bytes(i64::from(server.pid()))?;
    let mut guests = Vec::new();
    for _ in 0..many {
        let made = connection.call("POST", "/workspaces", Some(&json!({ "image": IMAGE })))?;
        guests.push(made["pid"].as_i64().context("a running workspace has a pid")?);
    }
    let after = pss_bytes(i64::from(server.pid()))?;
    let mut sizes = guests.iter().map(|pid| pss_bytes(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    sizes.sort_unstable();
    let guest = sizes[sizes.len() / 2] / 1024;
    let each = after.saturating_sub(before) / 1024 / many;
    report.value(
        &format!("guest of each of {many} workspaces, median"),
        &format!("{guest} KiB"),
        "",
    );
    report.value("server, for each workspace", &format!("{each} KiB"), "");
    report.value("server before", &format!("{} KiB", before / 1024), "");
    report.verdict(guest <= 2048, &format!("{guest} KiB each"));
    report.verdict(each <= 200, &format!("{each} KiB of the server each"));
    server.stop();
    Ok(())
}

/// Where a server keeps its disks.
pub(crate) fn pool(server: &Server) -> PathBuf {
    server.home().path().join("pool")
}
