//! From create to destroy.

use pinfold_types::{ErrorCode, WorkspaceState, workspace::CreateWorkspace};

use crate::house::{House, create, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_runs_commands_and_is_gone_when_destroyed() {
    let house = House::new();
    let (node, recovered) = house.open().await;
    assert!(recovered.is_empty(), "{recovered:?}");
    let made = create(&node, "one").await;
    assert_eq!((made.state, made.boot), (WorkspaceState::Running, 1));
    let (result, _) = sh(&node, "one", "true").await;
    assert_eq!(result.exit_code, Some(0));
    let (_, text) = sh(&node, made.id.to_string().as_str(), "echo hello; id -u").await;
    assert_eq!(text, "hello\n0\n");
    node.destroy("one").await.expect("destroyed");
    assert_eq!(node.get("one").expect_err("gone").code, ErrorCode::NotFound);
    let again = node
        .create(CreateWorkspace {
            name: Some("one".parse().expect("a name")),
            ..Default::default()
        })
        .await
        .expect("the name is free at once");
    assert_ne!(again.id, made.id);
    node.destroy("one").await.expect("destroyed");
    node.shutdown().await.expect("shut down");
}
