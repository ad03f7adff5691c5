//! Limits that hold, are counted, and leave nothing behind.

use std::time::{Duration, Instant};

use pinfold_namespace::{Cgroups, Launcher};
use pinfold_types::{
    ErrorCode, WorkspaceId,
    limits::{LimitKind, ResourceLimits},
};

use crate::harness::{Ground, Workspace, launcher_options, until};

async fn limited(limits: ResourceLimits) -> (Launcher, Cgroups, Workspace) {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let cgroups = Cgroups::detect("limits-test");
    let workspace = Ground::new().start_limited(&launcher, &cgroups, &limits).await;
    (launcher, cgroups, workspace)
}

#[tokio::test]
async fn memory_is_limited_and_the_kill_is_counted() {
    let limits = ResourceLimits { memory_bytes: Some(64 << 20), ..ResourceLimits::default() };
    let (_launcher, _, workspace) = limited(limits).await;
    let group = workspace.cgroup.as_ref().unwrap();
    assert_eq!(group.stats().oom_kills, Some(0));
    let (said, fine) = workspace.run("/usr/bin/python3 -c 'x=bytearray(200<<20)'");
    assert!(!fine, "{said}");
    assert_eq!(group.stats().oom_kills, Some(1));
    // Shared memory counts as well.
    let (said, fine) = workspace.run("dd if=/dev/zero of=/dev/shm/x bs=1M count=200");
    assert!(!fine, "{said}");
    workspace.output("rm -f /dev/shm/x");
    assert!(workspace.output("echo alive") == "alive");
    assert!(group.stats().memory_bytes.unwrap() < 64 << 20);
}

#[tokio::test]
async fn processes_are_limited_and_the_hit_is_counted() {
    let limits = ResourceLimits { pids: Some(16), ..ResourceLimits::default() };
    let (_launcher, _, workspace) = limited(limits).await;
    let group = workspace.cgroup.as_ref().unwrap();
    assert_eq!(group.stats().pids_hits, Some(0));
    let said = workspace.python(
        "import os,time\nos.setsid()\nn=0\ntry:\n  while n<100:\n    if os.fork()==0: time.sleep(5); os._exit(0)\n    n+=1\n\
         except OSError as e: print(e.errno, n<16)\nimport signal; signal.signal(15,signal.SIG_IGN); os.killpg(0,15)",
    );
    assert_eq!(said, "11 True");
    assert!(group.stats().pids_hits.unwrap() >= 1);
    assert!(group.stats().pids.unwrap() >= 1);
}

#[tokio::test]
async fn processor_time_is_capped() {
    let limits =
        ResourceLimits { cpu_millis: Some(200), cpu_weight: Some(50), ..ResourceLimits::default() };
    let (_launcher, _, workspace) = limited(limits).await;
    let group = workspace.cgroup.as_ref().unwrap();
    let before = group.stats().cpu_usec.unwrap();
    let started = Instant::now();
    workspace.output("timeout 1.5 sh -c 'while :; do :; done'; true");
    let (used, passed) = (group.stats().cpu_usec.unwrap() - before, started.elapsed());
    // A fifth of one processor, with room for the period's edges.
    assert!(u128::from(used) < passed.as_micros() * 35 / 100, "used {used} us in {passed:?}");
}

#[tokio::test]
async fn freezing_stops_everything_and_thawing_goes_on() {
    let (_launcher, _, workspace) = limited(ResourceLimits::default()).await;
    let group = workspace.cgroup.as_ref().unwrap();
    workspace.output("(while :; do :; done) >/dev/null 2>&1 &");
    let used = || group.stats().cpu_usec.unwrap();
    let start = used();
    until("the loop's start", || used() > start + 20_000);
    group.freeze().expect("frozen");
    let frozen = used();
    let pause = Instant::now();
    while pause.elapsed() < Duration::from_millis(100) {
        std::thread::yield_now();
    }
    assert_eq!(used(), frozen);
    group.thaw().expect("thawed");
    until("the loop's going on", || used() > frozen + 20_000);
    assert_eq!(workspace.output("echo on"), "on");
}

#[tokio::test]
async fn killing_ends_frozen_processes_and_removal_leaves_nothing() {
    let (_launcher, cgroups, workspace) = limited(ResourceLimits::default()).await;
    let id = workspace.spec.workspace;
    let group = workspace.cgroup.clone().unwrap();
    workspace.output("for i in 1 2 3 4 5; do setsid sleep 1000 >/dev/null 2>&1 & done");
    assert!(group.processes().len() >= 6);
    assert!(cgroups.list().contains(&id));
    // As another server of the same home would find it.
    let found = Cgroups::detect("limits-test").open(&id).expect("found again");
    assert_eq!(found.join(), group.join());
    group.freeze().expect("frozen");
    group.kill().expect("killed");
    crate::harness::wait_gone(&workspace.launched);
    group.remove().expect("removed");
    group.remove().expect("removing twice is fine");
    assert!(!cgroups.list().contains(&id));
    assert!(cgroups.open(&id).is_none());
    assert!(group.processes().is_empty());
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    let limits = ResourceLimits {
        memory_bytes: Some(64 << 20),
        pids: Some(64),
        ..ResourceLimits::default()
    };
    let (_launcher, _, workspace) = limited(limits).await;
    let group = workspace.cgroup.as_ref().unwrap();
    for bytes in [256_u64 << 20, 96 << 20] {
        group
            .apply(&ResourceLimits { memory_bytes: Some(bytes), ..ResourceLimits::default() })
            .expect("applied");
    }
    workspace.output("/usr/bin/python3 -c 'x=bytearray(70<<20)'");
    assert_eq!(group.stats().oom_kills, Some(0));
}

#[tokio::test]
async fn inside_the_cgroup_view_starts_at_its_own() {
    let (_launcher, _, workspace) = limited(ResourceLimits::default()).await;
    let seen = workspace.output("cat /proc/self/cgroup");
    for line in seen.lines() {
        let (name, path) = line.split_once(':').unwrap().1.split_once(':').unwrap();
        let joined = ["memory", "pids", "cpu", "cpuacct", "freezer", ""].contains(&name);
        assert!(path == "/" || !joined, "{line}");
        assert!(!path.contains("pinfold"), "{line}");
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let cgroups = Cgroups::detect("limits-test");
    let id = WorkspaceId::generate();
    for kind in [LimitKind::Memory, LimitKind::Swap, LimitKind::Cpu, LimitKind::Pids] {
        let mut limits = ResourceLimits::default();
        limits.set(kind, Some(1 << 30));
        match cgroups.enforceable(kind) {
            Ok(by) => assert!(by.starts_with("cgroup v"), "{by}"),
            Err(why) => {
                assert!(!why.is_empty());
                let error = cgroups.create(&id, &limits).expect_err("refused");
                assert_eq!(error.code, ErrorCode::CannotEnforce);
                assert!(error.message.contains(kind.field()), "{error}");
                assert!(cgroups.open(&id).is_none(), "something was made");
            }
        }
    }
    assert!(cgroups.enforceable(LimitKind::Disk).is_err());
}

#[test]
fn a_second_group_of_one_name_is_a_conflict_and_takes_nothing_away() {
    let cgroups = Cgroups::detect("limits-test");
    let id = WorkspaceId::generate();
    let first = cgroups.create(&id, &ResourceLimits::default()).expect("made");
    let error = cgroups.create(&id, &ResourceLimits::default()).expect_err("there already");
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(cgroups.open(&id).is_some_and(|found| found.join() == first.join()));
    first.remove().expect("removed");
}
