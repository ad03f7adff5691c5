//! Limits that are hit are told; limits that cannot be enforced are refused.

use pinfold_node::LocalNode;
use pinfold_types::{
    ErrorCode,
    exec::{ExecSpec, ExitReason},
    limits::{LimitKind, ResourceLimits},
    workspace::CreateWorkspace,
};

use crate::house::{House, named, sh};

/// A workspace whose limits are soon met.
async fn create_tight(node: &LocalNode, name: &str) {
    let limits = ResourceLimits {
        memory_bytes: Some(64 << 20),
        pids: Some(30),
        disk_bytes: Some(32 << 20),
        ..Default::default()
    };
    node.create(CreateWorkspace { limits, ..named(name) }).await.expect("made");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_processes_disk_and_output() {
    let house = House::new();
    let (node, _) = house.open().await;
    create_tight(&node, "w").await;

    let (fine, _) = sh(&node, "w", "true").await;
    assert!(fine.limits_hit.is_empty(), "{fine:?}");

    let hungry = "exec python3 -c 'x = bytearray(300 << 20)' || exec head -c 300m /dev/zero | tail";
    let (killed, text) = sh(&node, "w", hungry).await;
    assert_eq!(killed.reason, ExitReason::OutOfMemory, "{killed:?} {text}");
    assert!(killed.limits_hit.contains(&LimitKind::Memory));

    let (forks, _) = sh(&node, "w", "for i in $(seq 60); do sleep 2 & done").await;
    assert!(forks.limits_hit.contains(&LimitKind::Pids), "{forks:?}");

    while node.stats("w").await.expect("stats").pids.expect("counted") > 5 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let full = "dd if=/dev/zero of=/root/big bs=1M count=64; code=$?; sync; exit $code";
    let (full, text) = sh(&node, "w", full).await;
    assert_ne!(full.exit_code, Some(0), "{text}");
    assert!(full.limits_hit.contains(&LimitKind::Disk), "{full:?} {text}");
    let (after, text) = sh(&node, "w", "rm /root/big && echo fine > /root/small").await;
    assert_eq!(after.exit_code, Some(0), "room is free again: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_told_also_when_the_command_made_the_best_of_it() {
    let house = House::new();
    let (node, _) = house.open().await;
    create_tight(&node, "w").await;
    for (line, kind) in [
        ("python3 -c 'x = bytearray(300 << 20)'; exit 0", LimitKind::Memory),
        ("sh -c 'for i in $(seq 60); do sleep 1 & done'; exit 0", LimitKind::Pids),
        ("dd if=/dev/zero of=/root/big bs=1M count=64; sync; exit 0", LimitKind::Disk),
    ] {
        let (result, text) = sh(&node, "w", line).await;
        assert_eq!((result.exit_code, result.reason), (Some(0), ExitReason::Exited), "{text}");
        assert_eq!(result.limits_hit, [kind], "{line}: {text}");
        while node.stats("w").await.expect("stats").pids.expect("counted") > 5 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let (fine, _) = sh(&node, "w", "sleep 0.1").await;
    assert_eq!(fine.limits_hit, [], "the disk was full before, and this one did not touch it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_process_outlives_an_out_of_memory_kill_though_it_is_the_largest() {
    let house = House::new();
    let (node, _) = house.open().await;
    let limits = ResourceLimits { memory_bytes: Some(64 << 20), ..Default::default() };
    let made = node.create(CreateWorkspace { limits, ..named("w") }).await.expect("made");
    // The guest holds the last output of ended commands.
    for _ in 0..10 {
        let line = ExecSpec::argv(["head", "-c", "2000000", "/dev/zero"]);
        let stream = node.exec("w", line).await.expect("exec");
        stream.collect(10).await.expect("an end");
    }
    // Each of these is smaller than that; together they are too many.
    let line = "x=$(head -c 3000000 /dev/zero | tr '\\0' x); for i in $(seq 40); do \
                (x=$x$i; sleep 3) & done; wait; exit 0";
    let (result, text) = sh(&node, "w", line).await;
    assert!(result.limits_hit.contains(&LimitKind::Memory), "{result:?} {text}");
    let (after, text) =
        sh(&node, "w", "cat /proc/self/oom_score_adj; cat /proc/1/oom_score_adj").await;
    assert_eq!((after.exit_code, text.as_str()), (Some(0), "500\n0\n"));
    let now = node.get("w").expect("there");
    assert_eq!((now.boot, now.pid), (made.boot, made.pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_carried_at_its_rate_and_not_lost() {
    let house = House::new();
    let (node, _) = house.open().await;
    let limits = ResourceLimits { output_bytes_per_second: Some(100_000), ..Default::default() };
    node.create(CreateWorkspace { limits, ..named("w") }).await.expect("made");
    let begun = std::time::Instant::now();
    let (result, text) = sh(&node, "w", "head -c 150000 /dev/zero | tr '\\0' x").await;
    assert_eq!(text.len(), 150_000);
    assert!(begun.elapsed().as_millis() >= 450, "{:?}", begun.elapsed());
    assert_eq!(result.limits_hit, [LimitKind::Output]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let mut house = House::new();
    house.config.workspaces.max_count = 1;
    let (node, _) = house.open().await;
    let refused = |limits: ResourceLimits| {
        let node = node.clone();
        async move {
            let request = CreateWorkspace { limits, ..named("w") };
            node.create(request).await.expect_err("refused").code
        }
    };
    let tiny = ResourceLimits { memory_bytes: Some(1), ..Default::default() };
    assert_eq!(refused(tiny).await, ErrorCode::InvalidArgument);
    let files = ResourceLimits { open_files: Some(1 << 20), ..Default::default() };
    assert_eq!(refused(files).await, ErrorCode::Unprocessable);
    let unknown =
        CreateWorkspace { image: Some("no-such-image".parse().expect("a name")), ..named("w") };
    assert_eq!(node.create(unknown).await.expect_err("unknown").code, ErrorCode::NotFound);
    node.create(named("w")).await.expect("the name was given back each time");
    let refused = node.create(named("two")).await.expect_err("one is the most");
    assert_eq!(refused.code, ErrorCode::QuotaExceeded);
}
