//! What a workspace's command says, from its first byte on.

use pinfold_types::{
    exec::ExecSpec,
    workspace::{CreateWorkspace, WorkspaceInfo},
};

use crate::house::{House, named, sh};

fn with_command(name: &str, line: &str) -> CreateWorkspace {
    let command = Some(ExecSpec::argv(["/bin/sh", "-c", line]));
    let env = [("COLOUR".to_owned(), "green".to_owned())].into();
    CreateWorkspace { command, env, ..named(name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_output_is_in_the_log_that_is_asked_for_at_once() {
    let house = House::new();
    let (node, _) = house.open().await;
    for round in 0..5 {
        let name = format!("w{round}");
        let line = "echo hello $COLOUR; sleep 1000";
        node.create(with_command(&name, line)).await.expect("made");
        let logs = node.logs(&name, 0).await.expect("logs");
        assert_eq!((logs.output.as_str(), logs.end), ("hello green\n", 12));
        assert!(logs.exec_id.is_some());
        node.destroy(&name).await.expect("destroyed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_on_after_the_server_vanished_and_the_lost_environment_is_told() {
    let house = House::new();
    let (node, _) = house.open().await;
    let line =
        "echo one $COLOUR; while ! [ -e /root/go ]; do sleep 0.02; done; echo two; sleep 1000";
    let made = node.create(with_command("w", line)).await.expect("made");
    assert_eq!(made.warnings, Vec::<String>::new());
    let before = node.logs("w", 0).await.expect("logs");
    node.pause("w").await.expect("paused");
    house.crash(node).await;

    let (node, _) = house.open().await;
    let warned = |info: &WorkspaceInfo, part: &str| {
        assert!(info.warnings.len() == 1 && info.warnings[0].contains(part), "{info:?}");
    };
    warned(&node.get("w").expect("there"), "end with this boot");
    node.resume("w").await.expect("resumed");
    sh(&node, "w", "touch /root/go").await;
    let mut logs = None;
    for _ in 0..500 {
        let now = node.logs("w", 0).await.expect("logs");
        if now.output.contains("two") {
            logs = Some(now);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let logs = logs.expect("the log goes on");
    assert_eq!((logs.output.as_str(), logs.exec_id), ("one green\ntwo\n", before.exec_id));

    node.stop("w").await.expect("stopped");
    warned(&node.start("w").await.expect("started"), "runs without the 1 environment variable");
    warned(&node.get("w").expect("there"), "runs without");
    let logs = node.logs("w", 0).await.expect("logs");
    assert!(logs.output.starts_with("one\n"), "the new boot's, without its colour: {logs:?}");
}
