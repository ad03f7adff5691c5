//! Terminals.

use bytes::Bytes;
use pinfold_types::{
    ErrorCode, ExecId,
    exec::{ExecSpec, ExitReason, TtySize},
};

use crate::{
    harness::{Box, collect, run, sh},
    node::guest::{ExecEvent, ExecStream},
};

fn tty(mut spec: ExecSpec) -> ExecSpec {
    spec.tty = Some(TtySize { cols: 80, rows: 24 });
    spec.stdin = true;
    spec
}

/// Reads until `words` have appeared.
async fn until(stream: &mut ExecStream, words: &str) -> String {
    let mut text = String::new();
    while !text.contains(words) {
        match stream.next().await.unwrap() {
            ExecEvent::Stdout(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            other => panic!("{words:?} never came, but {other:?} after {text:?}"),
        }
    }
    text
}

#[tokio::test]
async fn a_terminal_has_size_session_and_job_control() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let line = "tty; stty size; echo $TERM; ps -o tpgid= -p $$ | tr -d ' '; echo $$";
    let outcome = run(&guest, tty(sh(line))).await;
    let lines: Vec<_> = outcome.text().lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{lines:?}");
    assert_eq!(lines[1..3], ["24 80", "xterm-256color"]);
    assert_eq!(lines[3], lines[4], "the shell leads the foreground group");
    assert_eq!(outcome.result.exit_code, Some(0));
    // The terminal belongs to the user.
    let mut spec = tty(sh("stat -c %u $(tty)"));
    spec.user = Some("nobody".into());
    assert_eq!(run(&guest, spec).await.text(), "65534\r\n");
}

#[tokio::test]
async fn resize_interrupt_and_end_of_file_are_as_typed() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let line = "trap 'stty size' WINCH; trap 'echo interrupted' INT; echo up; \
                while ! read line; do :; done; echo got $line; cat; echo end";
    let mut stream = guest.exec(ExecId::generate(), tty(sh(line))).await.unwrap();
    let input = stream.input();
    until(&mut stream, "up").await;
    input.resize(TtySize { cols: 101, rows: 41 }).await.unwrap();
    until(&mut stream, "41 101").await;
    let wrong = input.resize(TtySize { cols: 0, rows: 41 }).await.unwrap_err();
    assert_eq!(wrong.code, ErrorCode::InvalidArgument);
    input.write(Bytes::from_static(b"\x03")).await.unwrap();
    until(&mut stream, "interrupted").await;
    input.write(Bytes::from_static(b"hello\n")).await.unwrap();
    until(&mut stream, "got hello").await;
    input.eof().await.unwrap();
    until(&mut stream, "end").await;
    assert_eq!(collect(stream).await.result.exit_code, Some(0));
}

#[tokio::test]
async fn the_last_words_on_a_terminal_are_not_lost() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    for round in 0..30 {
        let outcome = run(&guest, tty(sh("seq 1 3000; echo last words"))).await;
        assert!(outcome.text().ends_with("3000\r\nlast words\r\n"), "round {round}");
    }
    // A background process that holds the terminal does not hold the result.
    let outcome = run(&guest, tty(sh("trap '' HUP; sleep 30 & echo over"))).await;
    assert_eq!((outcome.text(), outcome.result.reason), ("over\r\n", ExitReason::Exited));
    assert!(outcome.result.duration_ms < 2000);
}

#[tokio::test]
async fn a_shell_survives_the_loss_of_its_channel() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let id = ExecId::generate();
    let mut stream = guest.exec(id, tty(ExecSpec::argv(["sh"]))).await.unwrap();
    stream.input().write(Bytes::from_static(b"X=41; echo ready$((1+1))\n")).await.unwrap();
    until(&mut stream, "ready2").await;
    let offset = stream.offset;
    drop((stream, guest));
    let guest = workspace.connect().await;
    let mut stream = guest.attach(id, Some(offset)).await.unwrap();
    stream.input().write(Bytes::from_static(b"echo still$((X+1)); exit 5\n")).await.unwrap();
    until(&mut stream, "still42").await;
    assert_eq!(collect(stream).await.result.exit_code, Some(5));
}
