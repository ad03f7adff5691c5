//! Snapshots hold what was there, and restoring brings it back.

use pinfold_types::{
    ErrorCode, WorkspaceState, snapshot::CreateSnapshot, workspace::ForkWorkspace,
};

use crate::house::{House, create, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_restored_into_a_running_and_a_stopped_workspace() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "w").await;
    sh(&node, "w", "echo one > /root/f; rm -rf /usr/share/doc").await;
    let first = node.snapshot("w", CreateSnapshot::default()).await.expect("taken");
    assert_eq!(first.name.as_str(), "snap-1");
    let (still, _) = sh(&node, "w", "echo two > /root/f; mkdir /usr/share/doc").await;
    assert_eq!(still.exit_code, Some(0), "its processes go on");
    let named = CreateSnapshot { name: Some("b".parse().expect("a name")), ..Default::default() };
    let second = node.snapshot("w", named.clone()).await.expect("taken");
    assert_eq!(second.parent, Some(first.id));
    assert_eq!(node.snapshot("w", named).await.expect_err("taken").code, ErrorCode::AlreadyExists);

    let restored = node.restore("w", "snap-1").await.expect("restored");
    assert_eq!((restored.state, restored.boot), (WorkspaceState::Running, 2));
    assert_eq!(
        sh(&node, "w", "cat /root/f; ls -d /usr/share/doc 2>&1 | grep -c such").await.1,
        "one\n1\n"
    );
    node.stop("w").await.expect("stopped");
    node.restore("w", &second.id.to_string()).await.expect("restored");
    assert_eq!(node.get("w").expect("there").state, WorkspaceState::Stopped);
    node.start("w").await.expect("started");
    assert_eq!(sh(&node, "w", "cat /root/f").await.1, "two\n");

    node.destroy("w").await.expect("destroyed");
    let kept = node.snapshots(None).await.expect("listed");
    assert_eq!(kept.len(), 2, "snapshots outlive their workspace");
    assert!(kept.iter().all(|snapshot| snapshot.referenced_bytes.is_some()), "{kept:?}");
    let child =
        ForkWorkspace { name: Some("child".parse().expect("a name")), ..Default::default() };
    node.fork(&first.id.to_string(), child).await.expect("forked");
    assert_eq!(sh(&node, "child", "cat /root/f").await.1, "one\n");
    node.remove_snapshot(&first.id.to_string()).await.expect("removed");
    assert_eq!(sh(&node, "child", "cat /root/f").await.1, "one\n", "what stands on it stays");
    assert_eq!(node.get_snapshot("snap-1").await.expect_err("gone").code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_while_programs_write_is_one_instant() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "w").await;
    // Two files that a writer keeps equal, first a, then b: b is never ahead of a.
    let writer = "i=0; while :; do i=$((i+1)); echo $i > /root/a; echo $i > /root/b; done";
    let stream = node
        .exec("w", pinfold_types::exec::ExecSpec::argv(["/bin/sh", "-c", writer]))
        .await
        .expect("exec");
    let (begun, _) = sh(&node, "w", "while [ ! -s /root/b ]; do sleep 0.01; done").await;
    assert_eq!(begun.exit_code, Some(0));
    for number in 1..=5 {
        let outcome = node.fork("w", ForkWorkspace::default()).await.expect("forked");
        let pinfold_types::workspace::ForkOutcome::Workspace(child) = &outcome[0] else {
            panic!("{outcome:?}")
        };
        let (_, text) = sh(&node, child.name.as_str(), "echo $(cat /root/a) $(cat /root/b)").await;
        let values: Vec<u64> =
            text.split_whitespace().map(|value| value.parse().expect("a number")).collect();
        // The shell truncates before it writes, so either may be empty at that instant.
        if let [a, b] = values[..] {
            assert!(a == b || a == b + 1, "copy {number}: {text}");
        }
    }
    drop(stream);
}
