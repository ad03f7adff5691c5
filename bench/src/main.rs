//! The benchmark table: Pinfold beside the bare kernel work and its peers, all in one run on one
//! machine, so that ratios mean something where absolute times do not.
//!
//! `make bench` runs it as root on a release build and writes `docs/reports/bench.md`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that reports to people")]

mod client;
mod disks;
mod floor;
mod gates;
mod machine;
mod peers;
mod report;
mod root;
mod stats;
mod streams;
mod timer;
mod ungated;
mod workspaces;

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use report::Report;

const USAGE: &str = "\
usage: pinfold-bench --pinfold FILE [--report FILE] [--quick] [--only PART]…
       pinfold-bench time COUNT -- PROGRAM [WORD]…   ({} in a word is the run's number)
       pinfold-bench peers    the floor and the peers alone
       pinfold-bench ungated HOME LAUNCHER GUEST    the node behind bare handlers
parts: create exec rate snapshot fork memory streams gates";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pinfold: PathBuf,
    report: Option<PathBuf>,
    /// Fewer runs: to see that everything works.
    quick: bool,
    only: Vec<String>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    /// How often to measure something that is measured `count` times in a full run.
    fn runs(&self, count: usize) -> usize {
        if self.quick { count.div_ceil(10).max(3) } else { count }
    }
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "time") {
        return timer::child(&words[1..]);
    }
    if words.first().is_some_and(|word| word == "ungated") {
        return ungated::run(&words[1..]);
    }
    ensure!(testkit::is_root(), "the table compares what root can do: run it as root");
    if words.first().is_some_and(|word| word == "peers") {
        return peers_alone();
    }
    let options = parse(&words)?;
    ensure!(options.pinfold.is_file(), "{} is not there", options.pinfold.display());
    let mut report = Report::new(&machine::describe(&options.pinfold)?);
    let root = root::Root::make().context("the image that all share")?;
    let floor = floor::Floor::compile(&root).context("the floor program")?;
    let peers = peers::Peers::find(&root)?;
    for missing in peers.missing() {
        report.note(format!("{missing} was not measured: `make bench-setup` installs it"));
    }
    if options.wants("create") {
        workspaces::create(&options, &root, &floor, &peers, &mut report)?;
    }
    if options.wants("exec") {
        workspaces::exec(&options, &root, &floor, &peers, &mut report)?;
    }
    if options.wants("rate") {
        workspaces::rate(&options, &root, &floor, &mut report)?;
    }
    if options.wants("snapshot") {
        disks::snapshot(&options, &root, &mut report)?;
    }
    if options.wants("fork") {
        disks::fork(&options, &root, &floor, &mut report)?;
    }
    if options.wants("memory") {
        workspaces::memory(&options, &root, &mut report)?;
    }
    if options.wants("streams") {
        streams::measure(&options, &root, &mut report)?;
    }
    if options.wants("gates") {
        gates::measure(&options, &mut report)?;
    }
    let text = report.markdown();
    println!("{text}");
    if let Some(path) = &options.report {
        std::fs::write(path, &text).with_context(|| path.display().to_string())?;
        eprintln!("bench: written to {}", path.display());
    }
    Ok(())
}

/// To see what the others cost here without a build of ours.
fn peers_alone() -> anyhow::Result<()> {
    let root = root::Root::make().context("the image that all share")?;
    let floor = floor::Floor::compile(&root).context("the floor program")?;
    let peers = peers::Peers::find(&root)?;
    let mut report = Report::new(&[]);
    report.section("Create, start, first output", "to see the others");
    report.first("floor program", &floor.create(50)?);
    report.first("plain posix_spawn", &floor.spawn(50)?);
    for peer in peers.all() {
        report.first(&format!("{} ({})", peer.name, peer.manner), &peers.create(peer, "echo", 10)?);
    }
    report.section("Exec of `true`", "to see the others");
    report.times("floor: setns, fork, exec", &floor.enter(50)?.end);
    for peer in peers.all() {
        if let Some(runs) = peers.exec(peer, 10)? {
            report.times(&format!("{} exec", peer.name), &runs.end);
        }
    }
    println!("{}", report.markdown());
    Ok(())
}

fn parse(words: &[String]) -> anyhow::Result<Options> {
    let mut options =
        Options { pinfold: PathBuf::new(), report: None, quick: false, only: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--pinfold" => options.pinfold = value()?.into(),
            "--report" => options.report = Some(value()?.into()),
            "--only" => options.only.push(value()?),
            "--quick" => options.quick = true,
            _ => bail!("unknown word {word:?}\n{USAGE}"),
        }
    }
    ensure!(!options.pinfold.as_os_str().is_empty(), "{USAGE}");
    Ok(options)
}
