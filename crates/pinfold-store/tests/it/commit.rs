//! Group commit.

use pinfold_store::Change;

use crate::sample::{Home, event, workspace};

#[tokio::test]
async fn relaxed_changes_keep_their_place_in_line() {
    let home = Home::new();
    let store = home.store().await;
    let mut row = workspace("a");
    store.apply_relaxed(vec![Change::InsertWorkspace(Box::new(row.clone()))]);
    row.boot = 1;
    store.update_workspace_relaxed(&row);
    row.boot = 2;
    store.update_workspace(&row).await.expect("the row was added before");
    row.boot = 3;
    store.update_workspace_relaxed(&row);
    store.append_event_relaxed(event("a", "b"));
    store.flush().await.expect("flushed");
    assert_eq!(store.workspace(row.id).await.expect("read").expect("there").boot, 3);
    assert_eq!(store.events(None, 0, 10).await.expect("read").len(), 1);
}

#[tokio::test]
async fn relaxed_changes_reach_the_disk_by_themselves_and_before_the_end() {
    let home = Home::new();
    let store = home.store().await;
    let row = workspace("a");
    store.apply_relaxed(vec![Change::InsertWorkspace(Box::new(row.clone()))]);
    while store.workspace(row.id).await.expect("read").is_none() {
        tokio::task::yield_now().await;
    }
    store.apply_relaxed(vec![Change::DeleteWorkspace(row.id)]);
    store.close().await;
    let store = home.store().await;
    assert!(store.workspaces().await.expect("read").is_empty());
}

#[tokio::test]
async fn one_failure_in_a_group_is_its_own() {
    let home = Home::new();
    let store = home.store().await;
    // All are queued before the writer runs: this test has one thread and does not yield.
    let wishes: Vec<_> = (0..200).map(|place| workspace(&format!("w{}", place % 150))).collect();
    let results =
        futures_util::future::join_all(wishes.iter().map(|row| store.insert_workspace(row))).await;
    for (place, result) in results.iter().enumerate() {
        assert_eq!(result.is_ok(), place < 150, "{place}");
    }
    assert_eq!(store.workspaces().await.expect("read").len(), 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_checkpointed_and_stays_bounded_under_load() {
    let home = Home::new();
    let store = home.store().await;
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut row = workspace(&format!("w{writer}"));
                store.insert_workspace(&row).await.expect("stored");
                for boot in 1..400 {
                    row.boot = boot;
                    store.update_workspace(&row).await.expect("changed");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    let log = home.db().with_file_name("state.db-wal");
    let bytes = std::fs::metadata(log).expect("the log is there").len();
    assert!(bytes < 48 << 20, "the log has grown to {bytes} bytes");
    store.close().await;
    assert!(!home.db().with_file_name("state.db-wal").exists(), "closed in order");
}

#[tokio::test]
async fn events_that_nobody_waits_for_are_all_kept_in_order() {
    let home = Home::new();
    let store = home.store().await;
    // Whole statements of many events, and a rest.
    for place in 0..(16 * 7 + 5) {
        store.append_event_relaxed(event("kind", &place.to_string()));
    }
    store.flush().await.expect("flushed");
    assert_eq!(store.events(None, 0, 1000).await.expect("read").len(), 16 * 7 + 5);
    store.append_event_relaxed(event("kind", "alone"));
    // By itself, without a flush.
    let kept = loop {
        let kept = store.events(None, 0, 1000).await.expect("read");
        if kept.len() > 16 * 7 + 5 {
            break kept;
        }
        tokio::task::yield_now().await;
    };
    for (place, row) in kept.iter().take(16 * 7 + 5).enumerate() {
        assert_eq!(row.event, event("kind", &place.to_string()));
    }
    assert_eq!(kept.last().expect("many").event.object, "alone");
}
