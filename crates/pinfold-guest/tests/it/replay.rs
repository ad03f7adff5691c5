//! Back-pressure, lost channels, and output that is numbered.

use bytes::Bytes;
use pinfold_types::{ErrorCode, ExecId, exec::ExitReason};

use crate::{
    harness::{Box, collect, run, sh},
    node::guest::ExecEvent,
};

/// Fifty thousand numbered lines on both outputs; more than the replay buffer.
const LINES: &str = "i=0; while [ $i -lt 400 ]; do seq -f 'line %08.0f of the long output' \
                     $((i*1000)) $((i*1000+999)); i=$((i+1)); done";

#[tokio::test]
async fn a_foreground_command_loses_nothing_over_many_lost_channels() {
    let workspace = Box::start();
    let id = ExecId::generate();
    let mut guest = workspace.connect().await;
    let mut stream = guest.exec(id, sh(LINES)).await.unwrap();
    let (mut got, mut seen, mut losses) = (Vec::new(), 0, 0);
    let result = loop {
        match stream.next().await.unwrap() {
            ExecEvent::Stdout(bytes) => {
                got.extend_from_slice(&bytes);
                seen += bytes.len();
                if seen > 1_000_000 {
                    // The server dies with whatever is on its way and in its queues.
                    seen = 0;
                    losses += 1;
                    drop(stream);
                    drop(guest);
                    guest = workspace.connect().await;
                    stream = guest.attach(id, Some(got.len() as u64)).await.unwrap();
                    assert_eq!((stream.offset, stream.lost_bytes), (got.len() as u64, 0));
                }
            }
            ExecEvent::Exited(result) => break result,
            other => panic!("{other:?}"),
        }
    };
    assert!(losses >= 10, "{losses}");
    assert_eq!((result.reason, result.exit_code), (ExitReason::Exited, Some(0)));
    assert_eq!(result.stdout_bytes, got.len() as u64);
    let mut lines = got.split_inclusive(|byte| *byte == b'\n');
    for number in 0..400_000 {
        let line = format!("line {number:08} of the long output\n");
        assert_eq!(lines.next(), Some(line.as_bytes()), "lost, repeated or changed");
    }
    assert_eq!(lines.next(), None);
}

#[tokio::test]
async fn a_reader_further_up_may_begin_half_a_mebibyte_before_what_was_taken() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let id = ExecId::generate();
    let mut stream = guest.exec(id, sh(LINES)).await.unwrap();
    while stream.offset < 6_000_000 {
        stream.next().await.unwrap();
    }
    let from = stream.offset - 512 * 1024;
    drop(stream);
    let stream = guest.attach(id, Some(from)).await.unwrap();
    assert_eq!((stream.offset, stream.lost_bytes), (from, 0));
    let outcome = collect(stream).await;
    assert_eq!(from + outcome.out.len() as u64, outcome.result.stdout_bytes);
    assert!(outcome.out.ends_with(b"line 00399999 of the long output\n"));
}

#[tokio::test]
async fn nobody_attached_holds_a_foreground_command_and_not_a_background_one() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mark = workspace.path("finished");
    let line = format!("head -c 20000000 /dev/zero; echo > {mark}");
    let id = ExecId::generate();
    drop(guest.exec(id, sh(&line)).await.unwrap());
    // It has filled its buffer when its writer sleeps in the pipe.
    let blocked = "until grep -q pipe_write /proc/$(pgrep -x head)/wchan 2>/dev/null || \
                   [ $(ps -C head -o stat= | cut -c1) = S ]; do sleep 0.02; done; echo held";
    assert_eq!(run(&guest, sh(blocked)).await.text(), "held\n");
    assert!(!std::path::Path::new(&mark).exists(), "it wrote 20 MB that nobody took");
    let outcome = collect(guest.attach(id, Some(0)).await.unwrap()).await;
    assert_eq!(outcome.out.len(), 20_000_000);

    let mut spec = sh("seq 1 3000000; echo the end");
    spec.background = true;
    let id = ExecId::generate();
    drop(guest.exec(id, spec).await.unwrap());
    let ended = loop {
        if let Some(result) =
            guest.execs().await.unwrap().into_iter().find(|exec| exec.id == id).unwrap().result
        {
            break result;
        }
        run(&guest, sh("sleep 0.05")).await;
    };
    assert_eq!(ended.exit_code, Some(0));
    let stream = guest.attach(id, Some(0)).await.unwrap();
    let lost = stream.lost_bytes;
    assert_eq!(stream.offset, lost);
    let outcome = collect(stream).await;
    assert_eq!(lost + outcome.out.len() as u64, ended.stdout_bytes);
    assert!(outcome.out.len() > 1 << 20 && outcome.out.ends_with(b"3000000\nthe end\n"));
}

#[tokio::test]
async fn a_slow_reader_of_a_background_command_is_told_what_it_missed() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mut spec = sh("head -c 30000000 /dev/zero; echo end >&2");
    spec.background = true;
    let mut stream = guest.exec(ExecId::generate(), spec).await.unwrap();
    let first = stream.next().await;
    assert!(matches!(first, Some(ExecEvent::Stdout(_))));
    // Reads nothing while the command runs to its end.
    run(&guest, sh("while pgrep -x head >/dev/null; do sleep 0.02; done")).await;
    let (mut taken, mut last) = (0, Bytes::new());
    let result = loop {
        match stream.next().await.unwrap() {
            ExecEvent::Stdout(bytes) => taken += bytes.len() as u64,
            ExecEvent::Stderr(bytes) => last = bytes,
            ExecEvent::Exited(result) => break result,
            ExecEvent::Failed(error) => panic!("{error}"),
        }
    };
    let Some(ExecEvent::Stdout(first)) = first else { unreachable!() };
    assert_eq!(last, "end\n");
    assert!(stream.lost_bytes > 0);
    assert_eq!(taken + first.len() as u64 + stream.lost_bytes, result.stdout_bytes);
    assert_eq!(stream.offset, result.stdout_bytes + result.stderr_bytes);
}

#[tokio::test]
async fn single_bytes_on_both_outputs_neither_stop_nor_swell() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let line = "python3 -c 'import os\nfor i in range(60000): os.write(1 + i % 2, b\"x\")'";
    let outcome = run(&guest, sh(line)).await;
    assert_eq!((outcome.out.len(), outcome.err.len()), (30_000, 30_000));
    assert_eq!(outcome.result.exit_code, Some(0));
}

#[tokio::test]
async fn offsets_that_were_never_written_are_refused() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let id = ExecId::generate();
    collect(guest.exec(id, sh("echo four")).await.unwrap()).await;
    assert_eq!(collect(guest.attach(id, Some(5)).await.unwrap()).await.text(), "");
    assert_eq!(collect(guest.attach(id, Some(2)).await.unwrap()).await.text(), "ur\n");
    let refused = guest.attach(id, Some(6)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert_eq!(guest.attach(ExecId::generate(), None).await.unwrap_err().code, ErrorCode::NotFound);
}
