//! MCP as clients of others speak it: the official Python client over standard input and output,
//! and lines that no client would send.

mod lines;
mod peers;

use std::process::Command;

use testkit::Server;

#[test]
fn the_python_client_drives_a_session_that_begins_with_initialize() {
    python("legacy");
}

#[test]
fn the_python_client_drives_a_session_of_the_newest_revision() {
    python("auto");
}

fn python(mode: &str) {
    let python = peers::installed("mcp-python").join("bin/python");
    let server = Server::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/mcp/clients/session.py");
    let output = Command::new(python)
        .args(["-X", "faulthandler", script])
        .arg(testkit::bin("pinfold"))
        .arg(server.home().path())
        .arg(mode)
        .output()
        .expect("the client starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}\n{}", server.printed());
    server.stop();
}
