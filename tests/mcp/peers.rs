//! Programs of others, installed where they are missing.

use std::{path::PathBuf, process::Command};

use testkit::Server;

/// The directory of a peer, which `scripts/test-peers` installs.
pub(crate) fn installed(peer: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/test-peers");
    let output = Command::new(script).arg(peer).output().expect("scripts/test-peers");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{peer} cannot be installed: {failed}");
    PathBuf::from(said.trim())
}

/// Runs a client of a server to its end, which has to be a good one.
#[track_caller]
pub(crate) fn drive(server: &Server, client: &mut Command) -> String {
    let output = client.output().expect("the client starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}\n{}", server.printed());
    said.into_owned()
}
