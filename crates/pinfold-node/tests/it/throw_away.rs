//! `run`: a workspace that ends with its command or its client.

use pinfold_types::{ErrorCode, api::RunRequest, exec::ExecSpec, workspace::CreateWorkspace};

use crate::house::{House, until};

fn request(line: &str) -> RunRequest {
    RunRequest {
        workspace: CreateWorkspace::default(),
        exec: Some(ExecSpec::argv(["/bin/sh", "-c", line])),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_gone_before_its_end_is_told() {
    let house = House::new();
    let (node, _) = house.open().await;
    let (info, stream) = node.run(request("echo out; exit 7")).await.expect("run");
    assert!(node.get(&info.id.to_string()).is_ok());
    let (result, out, _) = stream.collect(100).await.expect("an end");
    assert_eq!((result.exit_code, out.as_slice()), (Some(7), &b"out\n"[..]));
    assert_eq!(node.get(&info.id.to_string()).expect_err("gone").code, ErrorCode::NotFound);
    node.shutdown().await.expect("shut down");
    assert_eq!(house.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_it_along() {
    let house = House::new();
    let (node, _) = house.open().await;
    let (_, mut stream) = node.run(request("echo up; sleep 1000")).await.expect("run");
    stream.next().await.expect("output");
    drop(stream);
    until("it is destroyed", || node.list().is_empty()).await;
    // A call that is dropped in the middle leaves nothing either.
    for wait in [1_u64, 3, 10] {
        let call = node.run(request("sleep 1000"));
        let cut = tokio::time::timeout(std::time::Duration::from_millis(wait), call).await;
        drop(cut);
    }
    node.clone().shutdown().await.expect("shut down");
    assert_eq!(node.list(), Vec::new(), "all are destroyed");
}
