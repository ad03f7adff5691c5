//! `kill -9` at any moment loses nothing that was acknowledged.
//!
//! One test plays both parts: started again with [`CHILD`] set it is the process that writes and
//! is killed.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use pinfold_types::{WorkspaceId, WorkspaceName};

use crate::sample::{Home, workspace};

/// Path of the database, in the environment of the child.
const CHILD: &str = "PINFOLD_STORE_KILL_CHILD";
const ROUNDS: u64 = 12;

fn start(home: &Home, round: u64) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "kill::kill_9_loses_nothing_that_was_acknowledged", "--nocapture"])
        .env(CHILD, format!("{round}:{}", home.db().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts")
}

/// Says `ack ID BOOT` when a workspace is stored with that boot, `gone ID` when it is removed.
fn write_until_killed(round: u64, path: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    runtime.expect("a runtime").block_on(async {
        let store = pinfold_store::Store::open(path).await.expect("the store opens");
        let say = |line: String| std::io::stdout().write_all(line.as_bytes()).expect("the pipe");
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    for place in 0..10_000 {
                        let mut row = workspace(&format!("r{round}-w{writer}-{place}"));
                        store.insert_workspace(&row).await.expect("stored");
                        say(format!("ack {} 0\n", row.id));
                        row.boot = 1;
                        store.update_workspace(&row).await.expect("changed");
                        say(format!("ack {} 1\n", row.id));
                        if place % 3 == 0 {
                            store.delete_workspace(row.id).await.expect("removed");
                            say(format!("gone {}\n", row.id));
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("a writer ends");
        }
    });
}

/// What the child acknowledged, by id: the boot, or `None` when it was removed.
type Acknowledged = BTreeMap<WorkspaceId, Option<u64>>;

fn hear(line: &str, acknowledged: &mut Acknowledged) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["ack", id, boot] => {
            acknowledged.insert(id.parse().expect("an id"), Some(boot.parse().expect("a boot")));
            true
        }
        ["gone", id] => {
            acknowledged.insert(id.parse().expect("an id"), None);
            true
        }
        _ => false,
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    if let Ok(order) = std::env::var(CHILD) {
        let (round, path) = order.split_once(':').expect("round and path");
        return write_until_killed(round.parse().expect("a round"), path);
    }
    let home = Home::new();
    let mut acknowledged = Acknowledged::new();
    // A linear congruence (Knuth, TAOCP 2 §3.3.4) gives the same moments in every run.
    let mut seed: u64 = 0x5eed_0042;
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let enough = (seed >> 33) % 400;
        let mut child = start(&home, round);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut heard = 0;
        for line in lines.by_ref() {
            heard += u64::from(hear(&line.expect("a line"), &mut acknowledged));
            if heard > enough {
                break;
            }
        }
        assert!(heard > enough, "the child ended by itself in round {round}");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        // What it had said by the time it died counts too; a half line does not.
        for line in lines {
            let Ok(line) = line else { break };
            let whole = line.starts_with("gone ") && line.len() == 5 + 29
                || line.starts_with("ack ") && line.len() == 4 + 29 + 2;
            if whole {
                hear(&line, &mut acknowledged);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let kept: BTreeMap<WorkspaceId, (WorkspaceName, u64)> =
            runtime.expect("a runtime").block_on(async {
                let store = home.store().await;
                let rows = store.workspaces().await.expect("read");
                store.close().await;
                rows.into_iter().map(|row| (row.id, (row.name, row.boot))).collect()
            });
        for (id, boot) in &acknowledged {
            let found = kept.get(id);
            match boot {
                // More than was acknowledged may have been stored: the next step of the writer.
                Some(boot) => {
                    let gone_next = found.is_none() && *boot == 1;
                    assert!(
                        gone_next || found.is_some_and(|(_, kept)| kept >= boot),
                        "{id} at boot {boot} was acknowledged, {found:?} is kept (round {round})"
                    );
                }
                None => assert!(found.is_none(), "{id} was removed and is back (round {round})"),
            }
        }
        // A removal that was under way when the child died is settled now.
        acknowledged.retain(|id, boot| boot.is_none() || kept.contains_key(id));
    }
    assert!(acknowledged.len() > 200, "only {} were acknowledged", acknowledged.len());
}
