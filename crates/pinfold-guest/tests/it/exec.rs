//! Commands from start to result.

use pinfold_types::exec::{ExecSpec, ExitReason};

use crate::harness::{Box, run, sh};

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
