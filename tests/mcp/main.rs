//! MCP as clients of others speak it, over standard input and output and over HTTP: the official
//! clients in Python and TypeScript, the official conformance runner, and what no client would send.

mod bearer;
mod conformance;
mod http;
mod lines;
mod peers;
mod person;
mod provider;
mod web;

use std::process::Command;

use testkit::Server;

#[test]
fn the_python_client_drives_a_session_that_begins_with_initialize() {
    over_lines("legacy");
}

#[test]
fn the_python_client_drives_a_session_of_the_newest_revision() {
    over_lines("auto");
}

#[test]
fn the_python_client_drives_a_session_over_http() {
    over_http("legacy");
}

#[test]
fn the_python_client_speaks_the_newest_revision_over_http() {
    over_http("auto");
}

fn over_lines(mode: &str) {
    let server = Server::start();
    let home = server.home().path().display().to_string();
    python(&server, &["stdio", &testkit::bin("pinfold").display().to_string(), &home, mode]);
    server.stop();
}

fn over_http(mode: &str) {
    let (server, address, token) = web::server();
    python(&server, &["http", &format!("http://{address}/mcp"), &token, mode]);
    server.stop();
}

fn python(server: &Server, words: &[&str]) {
    let python = peers::installed("mcp-python").join("bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/mcp/clients/session.py");
    let mut client = Command::new(python);
    client.args(["-X", "faulthandler", script]).args(words);
    peers::drive(server, &mut client);
}

#[test]
fn the_typescript_client_drives_a_session_over_http() {
    typescript("2025-11-25");
}

#[test]
fn the_typescript_client_speaks_the_newest_revision_over_http() {
    typescript("2026-07-28");
}

fn typescript(revision: &str) {
    let (server, address, token) = web::server();
    let mut client = peers::node("session.mjs");
    client.args([&format!("http://{address}/mcp"), &token, revision]);
    peers::drive(&server, &mut client);
    server.stop();
}
