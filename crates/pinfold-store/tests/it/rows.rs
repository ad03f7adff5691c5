//! What is written is what is read, and what must be unique is.

use pinfold_store::{Change, SnapshotState, WorkspaceSpec};
use pinfold_types::{
    ErrorCode, SnapshotId, WorkspaceId, WorkspaceState,
    exec::ExecSpec,
    limits::ResourceLimits,
    workspace::{Lineage, Walls},
};

use crate::sample::{Home, event, snapshot, time, workspace};

#[tokio::test]
async fn a_workspace_comes_back_as_it_was_stored() {
    let home = Home::new();
    let store = home.store().await;
    let mut row = workspace("fix-42");
    store.insert_workspace(&row).await.expect("stored");
    row.name = "fix-43".parse().expect("a name");
    row.state = WorkspaceState::Running;
    row.reason = Some("it \"broke\"; DROP TABLE workspaces;--".into());
    row.boot = u64::from(u32::MAX) + 1;
    row.spec = WorkspaceSpec {
        limits: ResourceLimits { memory_bytes: Some(1 << 40), ..ResourceLimits::default() },
        nested: true,
        hostname: Some("é".into()),
        labels: [("a".into(), "b".into())].into(),
        command: Some(ExecSpec::argv(["true"])),
        idle_ms: Some(5),
        walls: Some(Walls { seccomp: true, ..Walls::default() }),
        ..WorkspaceSpec::default()
    };
    row.lineage = Lineage {
        parent: Some(WorkspaceId::generate()),
        snapshot: Some(SnapshotId::generate()),
        depth: 3,
    };
    (row.pid, row.start_time, row.uid_slot) = (Some(i32::MAX), Some(1 << 62), Some(u32::MAX));
    (row.started_at, row.expires_at) = (Some(time(5)), Some(time(-5)));
    row.base_snapshot = Some(SnapshotId::generate());
    store.update_workspace(&row).await.expect("changed");
    // Debug shows every field except the secret, which it hides.
    let found = store.workspace(row.id).await.expect("read").expect("there");
    assert_eq!(format!("{found:?}"), format!("{row:?}"));
    let secret = |row: &pinfold_store::WorkspaceRow| *row.secret.as_ref().expect("kept").expose();
    assert_eq!(secret(&found), secret(&row));
    let named = store.workspace_named(&row.name).await.expect("read").expect("there");
    assert_eq!(named.id, row.id);
    assert!(
        store.workspace_named(&"fix-42".parse().expect("a name")).await.expect("read").is_none()
    );
    store.delete_workspace(row.id).await.expect("removed");
    store.delete_workspace(row.id).await.expect("removed again");
    assert!(store.workspace(row.id).await.expect("read").is_none());
    let refused = store.update_workspace(&row).await.expect_err("it is gone");
    assert_eq!(refused.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_live_name_and_a_uid_range_have_one_owner() {
    let home = Home::new();
    let store = home.store().await;
    let mut first = workspace("one");
    first.uid_slot = Some(3);
    store.insert_workspace(&first).await.expect("stored");
    let refused = store.insert_workspace(&workspace("one")).await.expect_err("the name is taken");
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
    assert!(refused.message.contains("\"one\"") && refused.hint.is_some());
    let mut second = workspace("two");
    store.insert_workspace(&second).await.expect("stored");
    second.name = first.name.clone();
    let refused = store.update_workspace(&second).await.expect_err("the name is taken");
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
    second.name = "two".parse().expect("a name");
    second.uid_slot = Some(3);
    let refused = store.update_workspace(&second).await.expect_err("the range is taken");
    assert_eq!(refused.code, ErrorCode::Internal, "two owners of a range are a fault of ours");
    // A workspace that is gone gives both back.
    store.delete_workspace(first.id).await.expect("removed");
    second.name = first.name.clone();
    store.update_workspace(&second).await.expect("both are free now");
}

#[tokio::test]
async fn of_many_racing_for_a_name_one_wins_and_the_others_hear_why() {
    let home = Home::new();
    let store = home.store().await;
    let racers: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.insert_workspace(&workspace("prize")).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.expect("a racer ends") {
            Ok(()) => won += 1,
            Err(refused) => assert_eq!(refused.code, ErrorCode::AlreadyExists),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(store.workspaces().await.expect("read").len(), 1);
}

#[tokio::test]
async fn changes_given_together_happen_together_or_not_at_all() {
    let home = Home::new();
    let store = home.store().await;
    let (taken, fresh) = (workspace("taken"), workspace("fresh"));
    store.insert_workspace(&taken).await.expect("stored");
    let refused = store
        .apply(vec![
            Change::InsertWorkspace(Box::new(fresh.clone())),
            Change::DeleteWorkspace(taken.id),
            Change::UpdateWorkspace(Box::new(workspace("ghost"))),
        ])
        .await
        .expect_err("the last one fails");
    assert_eq!(refused.code, ErrorCode::NotFound);
    let rows = store.workspaces().await.expect("read");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [taken.id]);
    store
        .apply(vec![
            Change::InsertWorkspace(Box::new(fresh.clone())),
            Change::DeleteWorkspace(taken.id),
        ])
        .await
        .expect("both are possible");
    let rows = store.workspaces().await.expect("read");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [fresh.id]);
}

#[tokio::test]
async fn activity_never_goes_backwards() {
    let home = Home::new();
    let store = home.store().await;
    let mut row = workspace("a");
    store.insert_workspace(&row).await.expect("stored");
    let at = |minutes: i64| time(1_800_000_000_000 + minutes * 60_000);
    store.touch_workspace(row.id, at(9));
    store.touch_workspace(row.id, at(3));
    row.boot = 1;
    store.update_workspace(&row).await.expect("changed, with an old time");
    let found = store.workspace(row.id).await.expect("read").expect("there");
    assert_eq!((found.last_active_at, found.boot), (at(9), 1));
}

#[tokio::test]
async fn snapshots_outlive_their_workspace() {
    let home = Home::new();
    let store = home.store().await;
    let (one, two) = (workspace("one"), workspace("two"));
    store.insert_workspace(&one).await.expect("stored");
    let mut first = snapshot(&one, "base");
    store.insert_snapshot(&first).await.expect("stored");
    let refused = store.insert_snapshot(&snapshot(&one, "base")).await.expect_err("taken");
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
    let other = snapshot(&two, "base");
    store.insert_snapshot(&other).await.expect("another workspace's name is another name");
    first.state = SnapshotState::Ready;
    (first.referenced_bytes, first.exclusive_bytes) = (Some(1 << 50), Some(0));
    first.parent = Some(other.id);
    first.method = "btrfs snapshot".into();
    store.update_snapshot(&first).await.expect("changed");
    store.delete_workspace(one.id).await.expect("removed");
    assert_eq!(store.snapshot(first.id).await.expect("read"), Some(first.clone()));
    assert_eq!(store.snapshots(Some(one.id)).await.expect("read"), [first.clone()]);
    assert_eq!(store.snapshots(None).await.expect("read"), [first.clone(), other]);
    store.delete_snapshot(first.id).await.expect("removed");
    assert_eq!(store.snapshot(first.id).await.expect("read"), None);
}

#[tokio::test]
async fn events_keep_their_order_and_are_read_in_pages() {
    let home = Home::new();
    let store = home.store().await;
    for place in 0..10 {
        store.append_event(event("exec.run", ["a", "b"][place % 2])).await.expect("recorded");
    }
    let all = store.events(None, 0, 100).await.expect("read");
    assert_eq!(all.len(), 10);
    assert!(all.is_sorted_by_key(|row| row.seq));
    assert_eq!(all[0].event, event("exec.run", "a"));
    let of_b = store.events(Some("b"), all[3].seq, 2).await.expect("read");
    assert_eq!(of_b.iter().map(|row| row.seq).collect::<Vec<_>>(), [all[5].seq, all[7].seq]);
}

#[tokio::test]
async fn facts_are_kept_across_a_restart() {
    let home = Home::new();
    let store = home.store().await;
    assert!(store.created());
    store.set_meta("pool", "one").await.expect("set");
    store.set_meta("pool", "two").await.expect("set");
    store.close().await;
    assert_eq!(store.flush().await.expect_err("closed").code, ErrorCode::Unavailable);
    let store = home.store().await;
    assert!(!store.created());
    assert_eq!(store.meta("pool").await.expect("read").as_deref(), Some("two"));
    assert_eq!(store.meta("pond").await.expect("read"), None);
}

#[tokio::test]
async fn records_are_put_replaced_and_removed_by_kind() {
    let home = Home::new();
    let put =
        |kind, id: &str, body: &str| Change::PutRecord { kind, id: id.into(), body: body.into() };
    let store = home.store().await;
    store
        .apply(vec![
            put("token", "b", "1"),
            put("token", "a", "2"),
            put("session", "a", "3"),
            put("token", "b", "4"),
        ])
        .await
        .expect("put");
    store.close().await;
    let store = home.store().await;
    let tokens = store.records("token").await.expect("read");
    assert_eq!(tokens, [("a".into(), "2".into()), ("b".into(), "4".into())]);
    let gone = Change::DeleteRecord { kind: "token", id: "a".into() };
    store.apply(vec![gone.clone(), gone]).await.expect("removed, and again");
    assert_eq!(store.records("token").await.expect("read").len(), 1);
    assert_eq!(store.records("session").await.expect("read").len(), 1, "of another kind");
    store.close().await;
}
