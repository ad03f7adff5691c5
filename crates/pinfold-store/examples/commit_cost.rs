//! What a durable write costs: one alone beside the bare `fdatasync` under it, and many at once.
//!
//! `cargo run --release -p pinfold-store --example commit_cost [DIRECTORY]`
#![expect(clippy::print_stdout, reason = "a table for a person")]

use std::{
    fs::OpenOptions,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use pinfold_store::{Event, Store, WorkspaceRow, WorkspaceSpec};
use pinfold_types::{ImageId, WorkspaceId, WorkspaceState, workspace::Lineage};

const ROUNDS: usize = 500;

fn row(name: &str) -> WorkspaceRow {
    let now = jiff::Timestamp::now();
    WorkspaceRow {
        id: WorkspaceId::generate(),
        name: name.parse().expect("a name"),
        state: WorkspaceState::Creating,
        reason: None,
        boot: 1,
        image_id: ImageId::generate(),
        image_name: "host".parse().expect("a name"),
        spec: WorkspaceSpec::default(),
        lineage: Lineage::default(),
        pid: None,
        start_time: None,
        uid_slot: None,
        secret: None,
        created_at: now,
        started_at: None,
        expires_at: None,
        last_active_at: now,
        base_snapshot: None,
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
    println!("{what:44} median {:6} us   p90 {:6} us   p99 {:6} us", at(50), at(90), at(99));
}

/// Four pages over the same place, as the log's frames are in steady state.
fn bare(dir: &Path) -> std::io::Result<Vec<Duration>> {
    let file = OpenOptions::new().create_new(true).write(true).open(dir.join("bare"))?;
    file.write_all_at(&vec![1; 4 << 20], 0)?;
    file.sync_all()?;
    let page = vec![2; 4 * 4120];
    (0..ROUNDS)
        .map(|round| {
            let place = u64::try_from(round % 200).expect("small") * 16_480;
            let began = Instant::now();
            file.write_all_at(&page, place)?;
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect()
}

async fn alone(store: &Store, tag: &str, with_event: bool) -> pinfold_types::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for place in 0..ROUNDS {
        let row = row(&format!("{tag}-{place}"));
        let began = Instant::now();
        if with_event {
            store.append_event_relaxed(Event {
                at: row.created_at,
                kind: "workspace.create".into(),
                object: String::new(),
                principal: "server".into(),
                detail: serde_json::Value::Null,
            });
        }
        store.insert_workspace(&row).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let place = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let dir = tempfile::tempdir_in(place)?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700))?;
    report("bare: write four pages, fdatasync", bare(dir.path())?);
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let store = Store::open(dir.path().join("state.db")).await?;
        times.push(began.elapsed());
        store.close().await;
    }
    report("open", times);
    let store = Store::open(dir.path().join("state.db")).await?;
    report("one insert alone", alone(&store, "a", false).await?);
    report("the same, later", alone(&store, "b", false).await?);
    let worker = store.clone();
    let inside = tokio::spawn(async move { alone(&worker, "w", false).await }).await??;
    report("one insert alone, from a worker thread", inside);
    report("one insert with a relaxed event", alone(&store, "c", true).await?);
    let mut times = Vec::new();
    for place in 0..ROUNDS {
        let began = Instant::now();
        store.workspace_named(&format!("a-{place}").parse()?).await?;
        times.push(began.elapsed());
    }
    report("one read", times);
    for many in [10, 100, 1000] {
        let rows: Vec<_> = (0..many).map(|place| row(&format!("m{many}-{place}"))).collect();
        let began = Instant::now();
        let tasks: Vec<_> = rows
            .into_iter()
            .map(|row| {
                let store = store.clone();
                tokio::spawn(async move {
                    let began = Instant::now();
                    store.insert_workspace(&row).await.map(|()| began.elapsed())
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await??);
        }
        let whole = began.elapsed().as_micros();
        report(&format!("{many} inserts at once, {whole} us for all"), times);
    }
    store.close().await;
    Ok(())
}
