//! From the first connection to the end of PID 1.

use std::time::{Duration, Instant};

use pinfold_types::{
    BootSecret, ErrorCode, ExecId, WorkspaceId,
    exec::{ExecSpec, ExitReason},
};

use crate::{
    harness::{BOOT, Box, SECRET, collect, run, sh},
    node::guest::{ExecEvent, Guest},
};

#[tokio::test]
async fn only_the_boots_secret_opens_the_channel() {
    let workspace = Box::start();
    let right = BootSecret::from_bytes(SECRET);
    let mut wrong = SECRET;
    wrong[31] ^= 1;
    let wrong = BootSecret::from_bytes(wrong);
    let (socket, id) = (&workspace.socket, &workspace.workspace);
    let other = WorkspaceId::generate();
    for (id, boot, secret, code) in [
        (id, BOOT, &wrong, ErrorCode::Unauthenticated),
        (id, BOOT + 1, &wrong, ErrorCode::Unauthenticated),
        (id, BOOT + 1, &right, ErrorCode::StaleBoot),
        (&other, BOOT, &right, ErrorCode::StaleBoot),
    ] {
        assert_eq!(Guest::connect(socket, id, boot, secret).await.unwrap_err().code, code);
    }
    let nowhere = workspace.dir.join("nowhere.sock");
    let refused = Guest::connect(&nowhere, id, BOOT, &right).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert_eq!(run(&workspace.connect().await, sh("exit 4")).await.result.exit_code, Some(4));
}

#[tokio::test]
async fn a_new_channel_replaces_the_old_one() {
    let workspace = Box::start();
    let old = workspace.connect().await;
    let mut stream = old.exec(ExecId::generate(), sh("echo up; sleep 60")).await.unwrap();
    assert!(matches!(stream.next().await, Some(ExecEvent::Stdout(_))));
    let new = workspace.connect().await;
    old.closed().await;
    assert!(old.is_closed());
    let Some(ExecEvent::Failed(error)) = stream.next().await else { panic!("still there") };
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(stream.next().await.is_none());
    assert_eq!(old.stat("/").await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(new.execs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_start_up_command_runs_before_anybody_dials() {
    let id = ExecId::generate();
    let workspace = Box::with(|config| {
        let mut spec = ExecSpec::argv(["sh", "-c", "echo from $FROM_CONFIG; exit 6"]);
        spec.background = true;
        config.command = Some((id, spec));
    });
    let guest = workspace.connect().await;
    let outcome = collect(guest.attach(id, Some(0)).await.unwrap()).await;
    assert_eq!((outcome.text(), outcome.result.exit_code), ("from yes\n", Some(6)));
}

#[tokio::test]
async fn shutdown_lets_programs_end_and_then_ends_everything() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mark = workspace.path("mark");
    let line =
        format!("trap 'echo bye > {mark}; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    let mut polite = guest.exec(ExecId::generate(), sh(&line)).await.unwrap();
    assert!(matches!(polite.next().await, Some(ExecEvent::Stdout(_))));
    let began = Instant::now();
    guest.shutdown(Duration::from_secs(30)).await.unwrap();
    workspace.wait();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "bye\n");
    guest.closed().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_the_stubborn_beyond_its_grace() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let line = "trap '' TERM HUP INT; echo up; while :; do sleep 1; done";
    let mut stubborn = guest.exec(ExecId::generate(), sh(line)).await.unwrap();
    assert!(matches!(stubborn.next().await, Some(ExecEvent::Stdout(_))));
    let began = Instant::now();
    guest.shutdown(Duration::from_millis(300)).await.unwrap();
    let result = collect(stubborn).await.result;
    assert_eq!((result.reason, result.signal), (ExitReason::WorkspaceStopped, Some(9)));
    workspace.wait();
    let took = began.elapsed();
    assert!((300..3000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn the_workload_cannot_end_stop_trace_or_read_pid_1() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let line = "for s in TERM INT HUP KILL STOP QUIT USR1 SEGV; do kill -$s 1; done";
    let mut spec = sh(line);
    spec.user = Some("nobody".into());
    run(&guest, spec).await;
    run(&guest, sh(line)).await;
    // It is root here; a plain user of the workspace is not even shown its program.
    let mut spec =
        sh("ls /proc/1/fd; readlink /proc/1/exe /proc/1/cwd; cat /proc/1/environ /proc/1/mem");
    spec.user = Some("nobody".into());
    let outcome = run(&guest, spec).await;
    assert!(outcome.out.is_empty() && outcome.result.exit_code != Some(0), "{}", outcome.text());
    assert_eq!(guest.stats().await.unwrap().execs, 0);
    assert!(!guest.is_closed());
}

#[tokio::test]
async fn identity_changes_leave_pid_1_undumpable() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mut spec = ExecSpec::argv(["true"]);
    spec.user = Some("nobody".into());
    run(&guest, spec).await;
    // The files of an undumpable process belong to root whatever it runs as, and its map of
    // memory needs the right to trace it.
    let mut spec = sh("cat /proc/1/maps");
    spec.user = Some("nobody".into());
    assert_ne!(run(&guest, spec).await.result.exit_code, Some(0));
    let stats = guest.stats().await.unwrap();
    assert!(stats.uptime_ms < 60_000 && stats.pids >= 1 && stats.guest_resident_bytes > 0);
    assert!(stats.disk_free_bytes > 0);
}
