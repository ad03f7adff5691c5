//! Commands from start to result.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::FutureExt;
use pinfold_types::{
    ErrorCode, ExecId,
    exec::{ExecSpec, ExitReason},
};

use crate::{
    harness::{Box, collect, run, sh},
    node::guest::ExecEvent,
};

#[tokio::test]
async fn true_runs_and_false_fails() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let outcome = run(&guest, ExecSpec::argv(["true"])).await;
    assert_eq!((outcome.result.reason, outcome.result.exit_code), (ExitReason::Exited, Some(0)));
    assert_eq!(run(&guest, ExecSpec::argv(["false"])).await.result.exit_code, Some(1));
    assert_eq!(run(&guest, sh("exit 77")).await.result.exit_code, Some(77));
    let killed = run(&guest, sh("kill -9 $$")).await.result;
    assert_eq!((killed.reason, killed.signal), (ExitReason::Signaled, Some(9)));
}

#[tokio::test]
async fn both_outputs_arrive_apart_and_input_goes_in() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let outcome = run(&guest, sh("echo out; echo err >&2; exit 3")).await;
    assert_eq!((outcome.text(), outcome.err.as_slice()), ("out\n", &b"err\n"[..]));
    assert_eq!((outcome.result.stdout_bytes, outcome.result.stderr_bytes), (4, 4));

    // More than any window or pipe holds, through cat and back.
    let mut spec = ExecSpec::argv(["cat"]);
    spec.stdin = true;
    let stream = guest.exec(ExecId::generate(), spec).await.unwrap();
    let input = stream.input();
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = Bytes::from(data.clone());
    let feeding = tokio::spawn(async move {
        input.write(sent).await.unwrap();
        input.eof().await.unwrap();
    });
    let outcome = collect(stream).await;
    feeding.await.unwrap();
    assert!(outcome.out == data, "what went in did not come out");

    // Without stdin it reads end of file at once.
    assert_eq!(run(&guest, ExecSpec::argv(["cat"])).await.result.exit_code, Some(0));
}

#[tokio::test]
async fn input_that_nobody_reads_ends_with_the_command() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mut spec = sh("exec sleep 0.2");
    spec.stdin = true;
    let stream = guest.exec(ExecId::generate(), spec).await.unwrap();
    let input = stream.input();
    let feeding = tokio::spawn(async move { input.write(Bytes::from(vec![0; 8 << 20])).await });
    assert_eq!(collect(stream).await.result.exit_code, Some(0));
    assert_eq!(feeding.await.unwrap().unwrap_err().code, ErrorCode::Conflict);
}

#[tokio::test]
async fn what_cannot_start_says_why_with_a_shells_code() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mut in_nowhere = ExecSpec::argv(["true"]);
    in_nowhere.cwd = Some("/nonexistent".into());
    let mut as_nobody_known = ExecSpec::argv(["true"]);
    as_nobody_known.user = Some("nosuchuser".into());
    for (spec, shell_code, words) in [
        (ExecSpec::argv(["no-such-program"]), 127, "not found"),
        (ExecSpec::argv(["/etc/passwd"]), 126, "permission denied"),
        (ExecSpec::argv(["/"]), 126, "permission denied"),
        (in_nowhere, 125, "/nonexistent"),
        (as_nobody_known, 125, "nosuchuser"),
    ] {
        let result = run(&guest, spec).await.result;
        assert_eq!((result.reason, result.shell_code()), (ExitReason::NotStarted, shell_code));
        let error = result.error.unwrap();
        assert!(error.message.contains(words), "{}", error.message);
    }
    // What breaks the rules is refused, not tried.
    let mut blocked = ExecSpec::argv(["true"]);
    blocked.env.insert("LD_PRELOAD".into(), "/evil.so".into());
    let refused = guest.exec(ExecId::generate(), blocked).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidArgument);
    let id = ExecId::generate();
    drop(guest.exec(id, ExecSpec::argv(["true"])).await.unwrap());
    let refused = guest.exec(id, ExecSpec::argv(["true"])).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
}

#[tokio::test]
async fn environment_directory_and_user_are_as_asked() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mut spec = sh("echo $FROM_CONFIG:$OWN:$HOME:$USER:$HOSTNAME:$(pwd):$(id -u):$(id -G)");
    spec.env.insert("OWN".into(), "mine".into());
    spec.cwd = Some("/usr".into());
    let text = run(&guest, spec.clone()).await.text().to_owned();
    assert_eq!(text, "yes:mine:/root:root:box:/usr:0:0\n");

    spec.user = Some("nobody".into());
    let text = run(&guest, spec.clone()).await.text().to_owned();
    assert_eq!(text, "yes:mine:/nonexistent:nobody:box:/usr:65534:65534\n");
    spec.user = Some("4242:7".into());
    let text = run(&guest, spec.clone()).await.text().to_owned();
    assert_eq!(text, "yes:mine:/:4242:box:/usr:4242:7\n");

    guest.set_env(BTreeMap::from([("OWN".into(), "from set_env".into())])).await.unwrap();
    let text = run(&guest, sh("echo $FROM_CONFIG:$OWN")).await.text().to_owned();
    assert_eq!(text, ":from set_env\n");
    let blocked = BTreeMap::from([("BASH_ENV".into(), "/x".into())]);
    assert!(guest.set_env(blocked).await.is_err());
    // Nothing of ours is open in a command, and nothing is blocked or ignored.
    assert_eq!(run(&guest, sh("ls /proc/$$/fd")).await.text(), "0\n1\n2\n");
    let masks = ExecSpec::argv(["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]);
    assert_eq!(
        run(&guest, masks).await.text(),
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

#[tokio::test]
async fn a_time_limit_kills_the_whole_tree() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    // A child, a background job, one in a session of its own with another environment, and a
    // daemon whose parent has ended.
    let mut spec =
        sh("sleep 1001 & setsid env -i /bin/sleep 1002 & (setsid sh -c 'sleep 1003 & exit' &); \
         setsid -f nohup sleep 1004 >/dev/null 2>&1; echo ready; sleep 1005");
    spec.timeout_ms = Some(700);
    let mut other = sh("sleep 1006");
    other.background = true;
    let kept = guest.exec(ExecId::generate(), other).await.unwrap();
    let outcome = run(&guest, spec).await;
    assert_eq!(outcome.text(), "ready\n");
    assert_eq!((outcome.result.reason, outcome.result.shell_code()), (ExitReason::TimedOut, 124));
    assert!((700..5000).contains(&outcome.result.duration_ms), "{}", outcome.result.duration_ms);
    let left = run(&guest, sh("ps -eo args | grep -o '^[^ ]*sleep 100.' | sort")).await;
    assert_eq!(left.text(), "sleep 1006\n", "only the other command's process may be left");
    kept.input().signal(9).await.unwrap();
    assert_eq!(collect(kept).await.result.signal, Some(9));
}

#[tokio::test]
async fn a_fork_bomb_is_over_at_its_time_limit() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let bomb = "ulimit -u 120; b() { b | b & }; b; sleep 100";
    let mut spec = ExecSpec::argv(["bash", "-c", bomb]);
    spec.user = Some("61234".into());
    spec.timeout_ms = Some(400);
    let result = run(&guest, spec).await.result;
    assert_eq!(result.reason, ExitReason::TimedOut);
    let left = run(&guest, sh("ps -u 61234 -o pid= | wc -l")).await;
    assert_eq!(left.text().trim(), "0");
}

#[tokio::test]
async fn a_daemon_outlives_its_command_and_may_still_write() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let mark = workspace.path("written");
    let line = format!("(sleep 0.3; echo late; echo $? > {mark}) & echo early");
    let outcome = run(&guest, sh(&line)).await;
    assert_eq!((outcome.text(), outcome.result.exit_code), ("early\n", Some(0)));
    assert!(outcome.result.duration_ms < 300, "{}", outcome.result.duration_ms);
    let waited = run(&guest, sh(&format!("until [ -s {mark} ]; do sleep 0.02; done; cat {mark}")));
    // The write found a reader: no SIGPIPE, no error.
    assert_eq!(waited.await.text(), "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_keep_their_output_apart() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let all: Vec<_> = (0..100)
        .map(|number| {
            let guest = guest.clone();
            tokio::spawn(async move {
                let line = format!("seq 1 2000 | sed s/^/{number}:/; exit {}", number % 50);
                (number, run(&guest, sh(&line)).await)
            })
        })
        .collect();
    for one in all {
        let (number, outcome) = one.await.unwrap();
        assert_eq!(outcome.result.exit_code, Some(number % 50));
        let expected = (1..=2000).map(|line| format!("{number}:{line}"));
        assert!(outcome.text().lines().eq(expected), "{number}");
    }
    assert_eq!(guest.stats().await.unwrap().execs, 0);
    // No zombie is left, and no descriptor: stdin, out, err, the listener, epoll and its kin.
    let zombies = run(&guest, sh("ps -eo stat= | grep -c ^Z")).await;
    assert_eq!(zombies.text().trim(), "0");
    let open = std::fs::read_dir(format!("/proc/{}/fd", workspace.guest_pid())).unwrap().count();
    assert!(open <= 14, "{open} descriptors are open in the guest");
}

#[tokio::test]
async fn orphans_are_reaped() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    run(&guest, sh("for i in 1 2 3 4 5 6 7 8; do setsid -f true; done")).await;
    let line = "for i in $(seq 200); do n=$(ps -eo stat= | grep -c ^Z); [ $n = 0 ] && exit 0; \
                sleep 0.01; done; exit 1";
    assert_eq!(run(&guest, sh(line)).await.result.exit_code, Some(0));
}

#[tokio::test]
async fn signals_reach_the_group_and_the_ended_are_left_alone() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let id = ExecId::generate();
    let mut stream = guest
        .exec(id, sh("trap 'echo caught; exit 9' USR1; echo up; sleep 60 & wait"))
        .await
        .unwrap();
    assert_eq!(stream.next().await, Some(ExecEvent::Stdout(Bytes::from_static(b"up\n"))));
    assert_eq!(guest.signal(id, 65).await.unwrap_err().code, ErrorCode::InvalidArgument);
    guest.signal(id, 10).await.unwrap();
    let outcome = collect(stream).await;
    assert_eq!((outcome.text(), outcome.result.exit_code), ("caught\n", Some(9)));
    assert_eq!(guest.signal(id, 10).await.unwrap_err().code, ErrorCode::Conflict);
    let unknown = guest.signal(ExecId::generate(), 10).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let known = guest.execs().await.unwrap();
    assert_eq!((known.len(), known[0].id), (1, id));
    assert_eq!(known[0].result.as_ref().unwrap().exit_code, Some(9));
}

#[tokio::test]
async fn a_dropped_call_is_taken_back_and_the_command_goes_on() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let id = ExecId::generate();
    let mark = workspace.path("mark");
    drop(guest.exec(id, sh(&format!("sleep 0.2; echo done > {mark}; echo end"))).await.unwrap());
    // A call that is dropped before its answer leaves nothing open either.
    let slow = guest.exec(ExecId::generate(), sh("sleep 0.1"));
    assert!(slow.now_or_never().is_none(), "it was answered before it was sent");
    let outcome = collect(guest.attach(id, None).await.unwrap()).await;
    assert_eq!(outcome.text(), "end\n");
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "done\n");
}
