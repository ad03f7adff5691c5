//! Boots that are ready before they are asked for.

use std::collections::HashSet;

use pinfold_node::{LocalNode, home_tag};
use pinfold_types::{
    WorkspaceId, WorkspaceState,
    api::RunRequest,
    exec::ExecSpec,
    limits::ResourceLimits,
    workspace::{CreateWorkspace, ForkWorkspace, WorkspaceInfo},
};

use crate::house::{House, create, gone, sh, until};

async fn nameless(node: &LocalNode) -> WorkspaceInfo {
    node.create(CreateWorkspace::default()).await.expect("a workspace")
}

/// Ids of boots that no workspace has.
fn unowned(house: &House, node: &LocalNode) -> HashSet<WorkspaceId> {
    let home = house.path().canonicalize().expect("a home");
    let owned: HashSet<_> = node.list().iter().map(|workspace| workspace.id).collect();
    let all = pinfold_namespace::Cgroups::detect(&home_tag(&home)).list();
    all.into_iter().filter(|id| !owned.contains(id)).collect()
}

async fn one_is_ready(node: &LocalNode) {
    until("a boot is ready", || node.ready_boots() == 1).await;
}

async fn ends_with_nothing_left(house: &House, node: LocalNode) {
    for workspace in node.list() {
        node.destroy(workspace.name.as_str()).await.expect("destroyed");
    }
    node.shutdown().await.expect("shut down");
    assert_eq!(house.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_one_is_handed_out_and_is_like_any_other() {
    let house = House::new();
    let (node, _) = house.open().await;
    assert_eq!(node.ready_boots(), 0, "nobody asked yet");
    let first = nameless(&node).await;
    one_is_ready(&node).await;
    let waiting = unowned(&house, &node);
    assert!(node.list().len() == 1 && waiting.len() == 1, "it is nobody's: {waiting:?}");

    // Whatever is part of a boot is not taken from one that was made without it.
    for other in [
        CreateWorkspace { name: Some("named".parse().expect("a name")), ..Default::default() },
        CreateWorkspace { hostname: Some("other".into()), ..Default::default() },
        CreateWorkspace { nested: true, ..Default::default() },
        CreateWorkspace {
            limits: ResourceLimits { pids: Some(77), ..Default::default() },
            ..Default::default()
        },
    ] {
        let made = node.create(other).await.expect("made");
        assert!(!waiting.contains(&made.id), "{made:?}");
    }
    until("the boot of another kind too", || node.ready_boots() == 2).await;
    assert!(unowned(&house, &node).is_superset(&waiting));

    let env = [("GREETING".to_owned(), "hello".to_owned())].into();
    let second = node.create(CreateWorkspace { env, ..Default::default() }).await.expect("made");
    assert!(waiting.contains(&second.id));
    assert_eq!(second.state, WorkspaceState::Running);
    assert_eq!((second.boot, &second.limits), (1, &first.limits));
    let (_, said) =
        sh(&node, second.name.as_str(), "hostname; echo $GREETING; getent hosts $(hostname)").await;
    let host = second.name.as_str();
    assert!(said.starts_with(&format!("{host}\nhello\n127.0.1.1 ")), "{said}");
    sh(&node, host, "echo kept > /root/f").await;
    node.stop(host).await.expect("stopped");
    node.start(host).await.expect("started");
    assert_eq!(sh(&node, host, "cat /root/f").await.1, "kept\n");
    ends_with_nothing_left(&house, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_none_and_one_that_died_is_not_handed_out() {
    let house = House::new();
    let (node, _) = house.open().await;
    nameless(&node).await;
    one_is_ready(&node).await;
    let lost: Vec<_> = unowned(&house, &node).into_iter().collect();
    house.crash(node).await;
    let (node, actions) = house.open().await;
    let said = actions
        .iter()
        .any(|action| action.object == lost[0].to_string() && action.action == "reclaimed");
    assert!(said, "{actions:?}");
    assert!(unowned(&house, &node).is_empty());

    nameless(&node).await;
    one_is_ready(&node).await;
    let dead: Vec<_> = unowned(&house, &node).into_iter().collect();
    let home = house.path().canonicalize().expect("a home");
    let cgroup = pinfold_namespace::Cgroups::detect(&home_tag(&home)).open(&dead[0]);
    let cgroup = cgroup.expect("its cgroup");
    cgroup.kill().expect("killed");
    until("it is dead", || cgroup.processes().is_empty()).await;
    let made = nameless(&node).await;
    assert_eq!(sh(&node, made.name.as_str(), "echo up").await.1, "up\n");
    assert_ne!(made.id, dead[0]);
    ends_with_nothing_left(&house, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_take_it_and_its_image_can_still_be_removed() {
    let house = House::new();
    let (node, _) = house.open().await;
    let request = |line: &str| RunRequest {
        workspace: CreateWorkspace::default(),
        exec: Some(ExecSpec::argv(["/bin/sh", "-c", line])),
    };
    let (_, stream) = node.run(request("true")).await.expect("run");
    stream.collect(100).await.expect("an end");
    one_is_ready(&node).await;
    let waiting = unowned(&house, &node);
    let (info, stream) = node
        .run(request("sync; echo out > /root/f; sync /root/f; cat /root/f"))
        .await
        .expect("run");
    let (result, out, _) = stream.collect(100).await.expect("an end");
    assert_eq!((result.exit_code, out.as_slice()), (Some(0), &b"out\n"[..]));
    assert!(waiting.contains(&info.id));
    assert!(gone(&node, &info.id.to_string()));
    one_is_ready(&node).await;
    node.remove_image("host").await.expect("nobody uses it");
    assert_eq!(node.ready_boots(), 0);
    ends_with_nothing_left(&house, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throw_away_disk_can_be_forked_from() {
    let house = House::new();
    let (node, _) = house.open().await;
    let (info, stream) = node
        .run(RunRequest {
            workspace: CreateWorkspace::default(),
            exec: Some(ExecSpec::argv(["/bin/sh", "-c", "echo kept > /root/f; exec sleep 1000"])),
        })
        .await
        .expect("run");
    let id = info.id.to_string();
    until("it is written", || {
        house.path().join("pool/disks").join(&id).join("upper/0/root/f").exists()
    })
    .await;
    let children = node.fork(&id, ForkWorkspace::default()).await.expect("forked");
    let pinfold_types::workspace::ForkOutcome::Workspace(child) = &children[0] else {
        panic!("{children:?}")
    };
    assert_eq!(sh(&node, child.name.as_str(), "cat /root/f").await.1, "kept\n");
    drop(stream);
    until("it is destroyed", || gone(&node, &id)).await;
    create(&node, "other").await;
}
