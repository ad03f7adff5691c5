//! Forks copy the disk, count their children, and never gain a right.

use pinfold_types::{
    ErrorCode, WorkspaceState,
    exec::ExecSpec,
    limits::ResourceLimits,
    snapshot::CreateSnapshot,
    workspace::{CreateWorkspace, ForkOutcome, ForkWorkspace},
};

use crate::house::{House, create, named, sh, until};

#[tokio::test(flavor = "multi_thread")]
async fn children_have_the_disk_a_number_and_their_own_life() {
    let house = House::new();
    let (node, _) = house.open().await;
    let limits = ResourceLimits { pids: Some(100), ..Default::default() };
    let source = node.create(CreateWorkspace { limits, ..named("w") }).await.expect("made");
    sh(&node, "w", "echo shared > /root/f").await;
    let request = ForkWorkspace {
        count: 5,
        name: Some("try".parse().expect("a name")),
        command: Some(ExecSpec::argv(["/bin/sh", "-c", "echo {} > /root/number"])),
        ..Default::default()
    };
    let outcomes = node.fork("w", request).await.expect("forked");
    assert_eq!(outcomes.len(), 5);
    for (number, outcome) in (1..).zip(&outcomes) {
        let ForkOutcome::Workspace(child) = outcome else { panic!("{outcome:?}") };
        assert_eq!(child.name.as_str(), format!("try-{number}"));
        assert_eq!((child.lineage.parent, child.lineage.depth), (Some(source.id), 1));
        assert_eq!(child.limits, source.limits);
        let wait = "while [ ! -s /root/number ]; do sleep 0.01; done; cat /root/f /root/number";
        let (_, text) = sh(&node, child.name.as_str(), wait).await;
        assert_eq!(text, format!("shared\n{number}\n"));
        sh(&node, child.name.as_str(), "echo mine > /root/f").await;
    }
    assert_eq!(sh(&node, "w", "cat /root/f").await.1, "shared\n");
    assert_eq!(node.list().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_its_childs_error_and_leaves_nothing() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "w").await;
    let taken = create(&node, "try-2").await;
    sh(&node, "w", "echo shared > /root/f").await;
    let try_it = || ForkWorkspace {
        count: 3,
        name: Some("try".parse().expect("a name")),
        ..Default::default()
    };
    for source in ["w", "w/still"] {
        if source == "w/still" {
            node.snapshot("w", named_snapshot("still")).await.expect("a snapshot");
        }
        let outcomes = node.fork(source, try_it()).await.expect("two of three");
        let [
            ForkOutcome::Workspace(first),
            ForkOutcome::Error(second),
            ForkOutcome::Workspace(third),
        ] = &outcomes[..]
        else {
            panic!("{outcomes:?}")
        };
        assert_eq!((first.name.as_str(), third.name.as_str()), ("try-1", "try-3"));
        assert_eq!(second.code, ErrorCode::AlreadyExists);
        assert!(second.message.contains("try-2"), "{}", second.message);
        for child in [first, third] {
            assert_eq!(sh(&node, child.name.as_str(), "cat /root/f").await.1, "shared\n");
            node.destroy(child.name.as_str()).await.expect("destroyed");
        }
    }
    assert_eq!(node.get("try-2").expect("untouched").id, taken.id);
    let ids = ["w", "try-2"].map(|name| node.get(name).expect("there").id.to_string());
    until("only the disks of what exists are left", || {
        let left = house.leftovers();
        left.iter().all(|what| ids.iter().any(|id| what.contains(id)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_children_than_are_cloned_at_once_all_have_the_disk() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "w").await;
    sh(&node, "w", "echo shared > /root/f").await;
    let request = ForkWorkspace {
        count: 150,
        name: Some("c".parse().expect("a name")),
        stopped: true,
        ..Default::default()
    };
    let outcomes = node.fork("w", request).await.expect("forked");
    assert_eq!(outcomes.len(), 150);
    for (number, outcome) in (1..).zip(&outcomes) {
        let ForkOutcome::Workspace(child) = outcome else { panic!("{outcome:?}") };
        assert_eq!(child.name.as_str(), format!("c-{number}"));
    }
    for number in [1, 128, 129, 150] {
        let name = format!("c-{number}");
        node.start(&name).await.expect("started");
        assert_eq!(sh(&node, &name, "cat /root/f").await.1, "shared\n");
    }
    assert_eq!(sh(&node, "w", "cat /root/f").await.1, "shared\n", "the source goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn wider_rights_and_taken_names_are_refused() {
    let house = House::new();
    let (node, _) = house.open().await;
    let limits = ResourceLimits { pids: Some(100), ..Default::default() };
    node.create(CreateWorkspace { limits, ..named("w") }).await.expect("made");
    let wider = ForkWorkspace {
        limits: ResourceLimits { pids: Some(101), ..Default::default() },
        ..Default::default()
    };
    assert_eq!(node.fork("w", wider).await.expect_err("wider").code, ErrorCode::Forbidden);
    let taken = ForkWorkspace { name: Some("w".parse().expect("a name")), ..Default::default() };
    assert_eq!(node.fork("w", taken).await.expect_err("taken").code, ErrorCode::AlreadyExists);
    for count in [0, 1001] {
        let request = ForkWorkspace { count, ..Default::default() };
        assert_eq!(
            node.fork("w", request).await.expect_err("count").code,
            ErrorCode::InvalidArgument
        );
    }
    node.stop("w").await.expect("stopped");
    let request = ForkWorkspace { count: 2, stopped: true, ..Default::default() };
    for outcome in node.fork("w", request).await.expect("forked") {
        let ForkOutcome::Workspace(child) = outcome else { panic!("{outcome:?}") };
        assert_eq!((child.state, child.boot), (WorkspaceState::Stopped, 0));
        node.start(child.name.as_str()).await.expect("started later");
    }
}

fn named_snapshot(name: &str) -> CreateSnapshot {
    CreateSnapshot { name: Some(name.parse().expect("a name")), ..Default::default() }
}
