//! What an earlier server left is found again, finished, undone or reclaimed.

use pinfold_types::{
    WorkspaceState, api::RunRequest, exec::ExecSpec, snapshot::CreateSnapshot,
    workspace::CreateWorkspace,
};

use crate::house::{House, create, named, sh, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_vanishes_finds_its_workspaces_again() {
    let house = House::new();
    let (node, _) = house.open().await;
    let running = create(&node, "running").await;
    create(&node, "paused").await;
    create(&node, "stopped").await;
    let killed = create(&node, "killed").await;
    node.create(CreateWorkspace { stopped: true, ..named("never") }).await.expect("made");
    sh(&node, "running", "echo kept > /root/f").await;
    let background = ExecSpec {
        background: true,
        ..ExecSpec::argv(["/bin/sh", "-c", "echo early; sleep 1000"])
    };
    let stream = node.exec("running", background).await.expect("exec");
    let exec = stream.exec_id;
    drop(stream);
    node.pause("paused").await.expect("paused");
    node.stop("stopped").await.expect("stopped");
    node.snapshot("stopped", CreateSnapshot::default()).await.expect("taken");
    house.crash(node).await;
    House::kill(killed.pid.expect("a pid"));

    let (node, actions) = house.open().await;
    let state = |name: &str| node.get(name).expect("found again").state;
    assert_eq!(state("running"), WorkspaceState::Running);
    assert_eq!(state("paused"), WorkspaceState::Paused);
    assert_eq!(state("stopped"), WorkspaceState::Stopped);
    assert_eq!(state("killed"), WorkspaceState::Stopped);
    assert_eq!(state("never"), WorkspaceState::Stopped);
    let done = |id: &str| {
        actions.iter().find(|action| action.object == id).map(|action| action.action.as_str())
    };
    assert_eq!(done(&running.id.to_string()), Some("adopted"));
    assert_eq!(done(&killed.id.to_string()), Some("marked stopped"));
    assert_eq!(node.get("running").expect("there").pid, running.pid);
    assert_eq!(sh(&node, "running", "cat /root/f").await.1, "kept\n");
    let mut stream = node.attach("running", exec, Some(0)).await.expect("attached again");
    match stream.next().await.expect("replayed") {
        pinfold_node::ExecEvent::Stdout(bytes) => assert_eq!(&bytes[..], b"early\n"),
        other => panic!("{other:?}"),
    }
    node.resume("paused").await.expect("resumed");
    assert_eq!(sh(&node, "paused", "echo on").await.1, "on\n");
    for name in ["stopped", "killed", "never"] {
        node.start(name).await.expect(name);
    }
    assert_eq!(node.snapshots(None).await.expect("listed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_record_names_is_reclaimed() {
    let house = House::new();
    let (node, _) = house.open().await;
    let lost = create(&node, "lost").await;
    let kept = create(&node, "kept").await;
    house.crash(node).await;
    let store = house.store().await;
    store.delete_workspace(lost.id).await.expect("forgotten");
    store.close().await;

    let (node, actions) = house.open().await;
    let about: Vec<&str> = actions
        .iter()
        .filter(|action| action.object.contains(&lost.id.to_string()))
        .map(|action| action.kind.as_str())
        .collect();
    assert!(about.contains(&"cgroup") && about.contains(&"disk"), "{actions:?}");
    until("its processes are gone", || !House::alive(lost.pid.expect("a pid"))).await;
    assert!(House::alive(kept.pid.expect("a pid")));
    assert_eq!(node.list().len(), 1);
    node.destroy("kept").await.expect("destroyed");
    node.shutdown().await.expect("shut down");
    assert_eq!(house.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_done_operations_are_finished_or_undone() {
    let house = House::new();
    let (node, _) = house.open().await;
    let removing = create(&node, "removing").await;
    let stopping = create(&node, "stopping").await;
    let creating = create(&node, "creating").await;
    house.crash(node).await;
    let store = house.store().await;
    let set = |id, state| {
        let store = store.clone();
        async move {
            let mut row = store.workspace(id).await.expect("read").expect("a row");
            row.state = state;
            if state == WorkspaceState::Creating {
                (row.pid, row.start_time) = (None, None);
            }
            store.update_workspace(&row).await.expect("written");
            row
        }
    };
    set(removing.id, WorkspaceState::Destroying).await;
    set(stopping.id, WorkspaceState::Stopping).await;
    let row = set(creating.id, WorkspaceState::Creating).await;
    // A record whose making never came to a disk.
    let mut never = row;
    never.id = pinfold_types::WorkspaceId::generate();
    never.name = "never".parse().expect("a name");
    never.uid_slot = Some(77);
    store.insert_workspace(&never).await.expect("written");
    store.close().await;

    let (node, actions) = house.open().await;
    let done = |id: pinfold_types::WorkspaceId| {
        let id = id.to_string();
        actions.iter().find(|action| action.object == id).map(|action| action.action.as_str())
    };
    assert_eq!(done(removing.id), Some("finished"));
    assert_eq!(done(stopping.id), Some("finished"));
    assert_eq!(done(creating.id), Some("adopted"));
    assert_eq!(done(never.id), Some("undone"));
    assert!(!House::alive(removing.pid.expect("a pid")));
    assert_eq!(node.get("stopping").expect("kept").state, WorkspaceState::Stopped);
    assert_eq!(sh(&node, "creating", "echo fine").await.1, "fine\n");
    assert_eq!(node.list().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn throw_away_workspaces_wait_for_their_client_and_then_end() {
    let house = House::new();
    let (node, _) = house.open().await;
    let request = |line: &str| RunRequest {
        workspace: CreateWorkspace::default(),
        exec: Some(ExecSpec::argv(["/bin/sh", "-c", line])),
    };
    let (back, stream) = node.run(request("echo a; sleep 1000")).await.expect("run");
    let (_gone, other) = node.run(request("sleep 1000")).await.expect("run");
    let exec = stream.exec_id;
    house.crash(node).await;
    drop((stream, other));

    let (node, _) = house.open().await;
    assert_eq!(node.list().len(), 2, "both are adopted");
    let mut again = node.attach(&back.id.to_string(), exec, Some(0)).await.expect("back in time");
    until("the one that nobody came for ends", || node.list().len() == 1).await;
    again.next().await.expect("its output");
    drop(again);
    until("the other ends with its client", || node.list().is_empty()).await;
}
