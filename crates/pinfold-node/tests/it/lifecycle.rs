//! From create to destroy.

use std::{collections::BTreeMap, time::Duration};

use pinfold_types::{
    ErrorCode, WorkspaceState,
    exec::{ExecSpec, ExitReason},
    limits::ResourceLimits,
    workspace::{CreateWorkspace, UpdateWorkspace},
};

use crate::house::{House, create, gone, named, sh, until};

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
    let again = create(&node, "one").await;
    assert_ne!(again.id, made.id, "the name is free at once");
    node.destroy("one").await.expect("destroyed");
    node.shutdown().await.expect("shut down");
    assert_eq!(house.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_for_one_name_end_in_one_workspace_and_one_conflict() {
    let house = House::new();
    let (node, _) = house.open().await;
    for _ in 0..5 {
        let calls = (0..4).map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.create(named("same")).await })
        });
        let mut made = 0;
        for call in calls.collect::<Vec<_>>() {
            match call.await.expect("a call") {
                Ok(_) => made += 1,
                Err(refused) => assert_eq!(refused.code, ErrorCode::AlreadyExists, "{refused}"),
            }
        }
        assert_eq!((made, node.list().len()), (1, 1));
        node.destroy("same").await.expect("destroyed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_keeps_the_disk_and_start_is_the_next_boot() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "w").await;
    sh(&node, "w", "echo kept > /root/file; nohup sleep 1000 >/dev/null 2>&1 &").await;
    let stopped = node.stop("w").await.expect("stopped");
    assert_eq!((stopped.state, stopped.pid), (WorkspaceState::Stopped, None));
    let refused = node.exec("w", ExecSpec::argv(["true"])).await.expect_err("stopped");
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.hint.expect("a hint").contains("start"));
    assert_eq!(node.stop("w").await.expect_err("twice").code, ErrorCode::Conflict);
    let started = node.start("w").await.expect("started");
    assert_eq!((started.state, started.boot), (WorkspaceState::Running, 2));
    assert_eq!(sh(&node, "w", "cat /root/file; pgrep -c sleep").await.1, "kept\n0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_processes_stand_still() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "w").await;
    let spec = ExecSpec::argv(["/bin/sh", "-c", "while :; do echo x; sleep 0.01; done"]);
    let mut stream = node.exec("w", spec).await.expect("exec");
    stream.next().await.expect("output");
    assert_eq!(node.pause("w").await.expect("paused").state, WorkspaceState::Paused);
    let drained = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_millis(300), drained).await.expect_err("no end, silence");
    let cpu = node.stats("w").await.expect("stats").cpu_usec;
    assert_eq!(
        node.exec("w", ExecSpec::argv(["true"])).await.expect_err("paused").code,
        ErrorCode::Conflict
    );
    assert_eq!(node.stats("w").await.expect("stats").cpu_usec, cpu);
    node.resume("w").await.expect("resumed");
    stream.next().await.expect("it goes on");
    node.pause("w").await.expect("paused");
    node.destroy("w").await.expect("a paused workspace can be destroyed");
    assert!(node.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_act_at_once() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "old").await;
    create(&node, "other").await;
    let rename = |name: &str| UpdateWorkspace {
        name: Some(name.parse().expect("a name")),
        ..Default::default()
    };
    assert_eq!(
        node.update("old", rename("other")).await.expect_err("taken").code,
        ErrorCode::AlreadyExists
    );
    node.update("old", rename("new")).await.expect("renamed");
    assert_eq!(node.get("old").expect_err("moved").code, ErrorCode::NotFound);
    let change = UpdateWorkspace {
        limits: ResourceLimits { pids: Some(12), ..Default::default() },
        labels: Some(BTreeMap::from([("a".into(), "b".into())])),
        ..Default::default()
    };
    let changed = node.update("new", change).await.expect("changed");
    assert_eq!(changed.labels["a"], "b");
    let (result, text) = sh(&node, "new", "for i in $(seq 40); do sleep 5 & done").await;
    assert_ne!(result.exit_code, Some(0), "{text}");
    assert!(result.limits_hit.contains(&pinfold_types::limits::LimitKind::Pids), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_to_live_and_idle_time_end_a_workspace() {
    let house = House::new();
    let (node, _) = house.open().await;
    let request = CreateWorkspace { ttl_ms: Some(300), ..named("short") };
    node.create(request).await.expect("made");
    let idle = CreateWorkspace { idle_ms: Some(400), ..named("idle") };
    node.create(idle).await.expect("made");
    let mut stream = node
        .exec("idle", ExecSpec::argv(["/bin/sh", "-c", "sleep 1; echo end"]))
        .await
        .expect("exec");
    until("its time to live is over", || gone(&node, "short")).await;
    let mut text = Vec::new();
    let result = loop {
        match stream.next().await.expect("an event") {
            pinfold_node::ExecEvent::Stdout(bytes) => text.extend_from_slice(&bytes),
            pinfold_node::ExecEvent::Exited(result) => break result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (result.exit_code, text.as_slice()),
        (Some(0), &b"end\n"[..]),
        "a stream keeps it alive"
    );
    drop(stream);
    until("it lies idle", || gone(&node, "idle")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_up_command_runs_at_every_boot_and_its_output_is_kept() {
    let house = House::new();
    let (node, _) = house.open().await;
    let mut command = ExecSpec::argv(["/bin/sh", "-c", "echo boot $WHAT; exec sleep 1000"]);
    command.env.insert("WHAT".into(), "now".into());
    node.create(CreateWorkspace { command: Some(command), ..named("w") }).await.expect("made");
    let said = async {
        while node.logs("w", 0).await.expect("logs").output != "boot now\n" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), said).await.expect("the command's output");
    node.stop("w").await.expect("stopped");
    node.start("w").await.expect("started");
    assert_eq!(node.execs("w").await.expect("execs").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_guest_is_told_and_can_be_started_again() {
    let house = House::new();
    let (node, _) = house.open().await;
    let made = create(&node, "w").await;
    let stream = node.exec("w", ExecSpec::argv(["sleep", "1000"])).await.expect("exec");
    House::kill(made.pid.expect("a pid"));
    let (result, ..) = stream.collect(0).await.expect("an end");
    assert_eq!(result.reason, ExitReason::WorkspaceStopped);
    until("it is marked stopped", || node.get("w").expect("kept").state == WorkspaceState::Stopped)
        .await;
    assert!(node.get("w").expect("kept").reason.expect("a reason").contains("killed"));
    let told = async {
        let told = |logs: pinfold_types::api::WorkspaceLogs| {
            logs.events.iter().any(|event| event.kind == "workspace.died")
        };
        while !told(node.logs("w", 0).await.expect("logs")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("it is in the log");
    node.start("w").await.expect("started again");
    assert_eq!(sh(&node, "w", "echo back").await.1, "back\n");
}
