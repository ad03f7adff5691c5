//! Limits that are hit are told; limits that cannot be enforced are refused.

use pinfold_types::{
    ErrorCode,
    exec::ExitReason,
    limits::{LimitKind, ResourceLimits},
    workspace::CreateWorkspace,
};

use crate::house::{House, named, sh};

#[tokio::test(flavor = "multi_thread")]
async fn memory_processes_disk_and_output() {
    let house = House::new();
    let (node, _) = house.open().await;
    let limits = ResourceLimits {
        memory_bytes: Some(64 << 20),
        pids: Some(30),
        disk_bytes: Some(32 << 20),
        ..Default::default()
    };
    node.create(CreateWorkspace { limits, ..named("w") }).await.expect("made");

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
