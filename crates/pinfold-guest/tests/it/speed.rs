//! Numbers. The bounds are far from what an idle machine gives: they catch mistakes in kind, such
//! as a copy too many or a wait for a timer, not in degree. The numbers themselves are shown with
//! `--nocapture`; `PINFOLD_TEST_GUEST` names another build of the guest to measure.

use std::time::Instant;

use futures_util::TryStreamExt;
use pinfold_proto::WriteOptions;
use pinfold_types::{ExecId, exec::ExecSpec};

use crate::{
    harness::{Box, run, sh},
    node::guest::ExecEvent,
};

#[expect(clippy::print_stdout, reason = "numbers for whoever asks with --nocapture")]
fn show(what: &str, value: impl std::fmt::Display) {
    println!("{what}: {value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_true_takes_less_than_ten_milliseconds() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mut times = Vec::new();
    for _ in 0..400 {
        let began = Instant::now();
        run(&guest, ExecSpec::argv(["/bin/true"])).await;
        times.push(began.elapsed());
    }
    times.sort();
    show("exec of true, median", format!("{:?}, p99 {:?}", times[200], times[396]));
    assert!(times[200].as_millis() < 10, "{:?}", times[200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_of_output_takes_less_than_ten_seconds() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let began = Instant::now();
    let spec = ExecSpec::argv(["head", "-c", "1073741824", "/dev/zero"]);
    let mut stream = guest.exec(ExecId::generate(), spec).await.unwrap();
    let mut total = 0;
    while let Some(event) = stream.next().await {
        if let ExecEvent::Stdout(bytes) = event {
            total += bytes.len();
        }
    }
    assert_eq!(total, 1 << 30);
    let took = began.elapsed();
    show("1 GiB of output", format!("{took:?}, {:.2} GB/s", 1.073_741_824 / took.as_secs_f64()));
    assert!(took.as_secs() < 10, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_both_ways_in_less_than_ten_seconds() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let path = workspace.path("large");
    let piece = bytes::Bytes::from(vec![5; 256 << 10]);
    let content = futures_util::stream::iter(vec![Ok(piece); 2048]);
    let began = Instant::now();
    let written =
        guest.write(&path, WriteOptions::default(), std::boxed::Box::pin(content)).await.unwrap();
    let write = began.elapsed();
    assert_eq!(written.size_bytes, 512 << 20);
    let began = Instant::now();
    let mut content = guest.read(&path, 0, None).await.unwrap();
    let mut total = 0;
    while let Some(piece) = content.try_next().await.unwrap() {
        total += piece.len();
    }
    let read = began.elapsed();
    assert_eq!(total, 512 << 20);
    let rate =
        |took: std::time::Duration| format!("{:.2} GB/s", 0.536_870_912 / took.as_secs_f64());
    show("512 MiB written", rate(write));
    show("512 MiB read", rate(read));
    assert!(write.as_secs() < 10 && read.as_secs() < 10, "{write:?} {read:?}");
}

#[tokio::test]
async fn an_idle_guest_is_small() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    run(&guest, sh("true")).await;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", workspace.guest_pid()));
    let rollup = rollup.unwrap();
    let kib = |field: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    show("idle guest, PSS", format!("{} KiB, private {} KiB", kib("Pss:"), kib("Private_Dirty:")));
    // Debug builds are larger in file pages, which all guests share; what each has alone is not.
    assert!(kib("Private_Dirty:") < 2048, "{rollup}");
}
