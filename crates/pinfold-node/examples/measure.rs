//! What the node costs: medians and tails of the operations that people wait for.
//!
//! As root: `cargo run --example measure -p pinfold-node --release`, after
//! `cargo build --release -p pinfold-guest -p pinfold-namespace`.

#![expect(clippy::print_stdout, reason = "a table for people")]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pinfold_disk::Pool;
use pinfold_node::{ExecEvent, ExecStream, LocalNode, NodeOptions};
use pinfold_store::Store;
use pinfold_types::{
    Mode, Result,
    config::Config,
    exec::ExecSpec,
    workspace::{CreateWorkspace, ForkOutcome, ForkWorkspace},
};

fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    own.parent().and_then(Path::parent).expect("target/PROFILE/examples").join(name)
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at =
        |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{what:<46} n={:<4} median {:8.3} ms  p99 {:8.3} ms", times.len(), at(50), at(99));
}

async fn end(mut stream: ExecStream) {
    while let Some(event) = stream.next().await {
        if let ExecEvent::Exited(result) = event {
            assert_eq!(result.exit_code, Some(0), "{result:?}");
        }
    }
}

async fn run_true(node: &LocalNode, reference: &str) -> Result<()> {
    end(node.exec(reference, ExecSpec::argv(["/bin/true"])).await?).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let dir = tempfile::Builder::new()
        .prefix("pfmeasure")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .expect("a temporary home");
    let mut config = Config::default();
    config.pool.loop_bytes = Some(8 << 30);
    config.pool.min_free_bytes = 0;
    config.workspaces.uid_base = 0x5000_0000;
    let store = Store::open(dir.path().join("state.db")).await?;
    let options = NodeOptions::new(
        dir.path().to_path_buf(),
        config.clone(),
        store,
        program("pinfold-launcher"),
        program("pinfold-guest"),
    );
    let begun = Instant::now();
    let (node, _) = LocalNode::open(options).await?;
    println!("open {:?}", begun.elapsed());
    let begun = Instant::now();
    node.create(named("first")).await?;
    println!("first create {:?}", begun.elapsed());

    measure(&node).await?;

    for workspace in node.list() {
        node.destroy(workspace.name.as_str()).await?;
    }
    node.shutdown().await?;
    Pool::open(&config.pool, dir.path(), Mode::Root)?.close()
}

async fn measure(node: &LocalNode) -> Result<()> {
    let (mut created, mut first, mut execs, mut destroyed) = (vec![], vec![], vec![], vec![]);
    for _ in 0..100 {
        let begun = Instant::now();
        let made = node.create(CreateWorkspace::default()).await?;
        created.push(begun.elapsed());
        let name = made.name.as_str();
        run_true(node, name).await?;
        first.push(begun.elapsed());
        let begun = Instant::now();
        node.destroy(name).await?;
        destroyed.push(begun.elapsed());
    }
    row("create", created);
    row("create, exec true, its end", first);
    row("destroy", destroyed);
    for _ in 0..500 {
        let begun = Instant::now();
        run_true(node, "first").await?;
        execs.push(begun.elapsed());
    }
    row("exec true", execs);

    let mut forks = vec![];
    for _ in 0..50 {
        let begun = Instant::now();
        let outcomes = node.fork("first", ForkWorkspace::default()).await?;
        let ForkOutcome::Workspace(child) = &outcomes[0] else { panic!("{outcomes:?}") };
        run_true(node, child.name.as_str()).await?;
        forks.push(begun.elapsed());
        node.destroy(child.name.as_str()).await?;
    }
    row("fork running, exec true in the child", forks);

    let begun = Instant::now();
    let many = ForkWorkspace { count: 100, name: Some("many".parse()?), ..Default::default() };
    let outcomes = node.fork("first", many).await?;
    println!("100 forks {:?}", begun.elapsed());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, ForkOutcome::Workspace(_))));
    let before = resident();
    let more = ForkWorkspace { count: 100, name: Some("more".parse()?), ..Default::default() };
    node.fork("first", more).await?;
    println!("memory of the node a live workspace: {} KiB", (resident() - before) / 100);
    for number in 1..=100 {
        node.destroy(&format!("more-{number}")).await?;
    }
    let begun = Instant::now();
    let all = (1..=100).map(|number| {
        let node = node.clone();
        tokio::spawn(async move { node.destroy(&format!("many-{number}")).await })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.expect("a task")?;
    }
    println!("100 destroys at once {:?}", begun.elapsed());

    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let node = node.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let name = format!("at-once-{number}");
                node.create(named(&name)).await?;
                run_true(&node, &name).await?;
                Ok::<_, pinfold_types::Error>(begun.elapsed())
            })
        })
        .collect();
    let mut times = vec![];
    for task in tasks {
        times.push(task.await.expect("a task")?);
    }
    row("50 at once: create, exec true, its end", times);
    Ok(())
}

/// Resident memory of this process, KiB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("own status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

fn named(name: &str) -> CreateWorkspace {
    CreateWorkspace { name: Some(name.parse().expect("a name")), ..Default::default() }
}
