//! The API against its own document: schemathesis reads what a running server serves as
//! `/api/v1/openapi.json` and sends what the document allows and what it forbids.
//!
//! `PINFOLD_SCHEMATHESIS_EXAMPLES` and `PINFOLD_SEED` change how much and what.

mod proxy;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use testkit::Server;

/// Cases of each operation and phase in an ordinary run.
const EXAMPLES: &str = "6";
/// Where randomness begins in an ordinary run.
const SEED: &str = "7";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The program, installed if need be.
fn schemathesis() -> PathBuf {
    let output = Command::new(root().join("scripts/schemathesis")).output().expect("the script");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn value(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// A server with a workspace, a snapshot of it, a workspace to be ended and a session.
struct Fixture {
    server: Server,
    env: Vec<(&'static str, String)>,
}

impl Fixture {
    fn new() -> Self {
        let server = Server::start();
        server.pinfold(&["create", "fixture"]).ok();
        server.pinfold(&["create", "victim"]).ok();
        server.pinfold(&["snapshot", "create", "fixture", "--name", "first"]).ok();
        let list = server.api("GET", "/api/v1/workspaces/fixture/snapshots", None).json();
        let snapshot = list["items"][0]["id"].as_str().expect("a snapshot").to_owned();
        let empty = serde_json::json!({ "client": "schemathesis" });
        let session = server.api("POST", "/api/v1/sessions", Some(&empty)).json();
        let session = session["id"].as_str().expect("a session").to_owned();
        let env = vec![
            ("PINFOLD_WORKSPACE", "fixture".to_owned()),
            ("PINFOLD_VICTIM", "victim".to_owned()),
            ("PINFOLD_SNAPSHOT", snapshot),
            ("PINFOLD_SESSION", session),
        ];
        Self { server, env }
    }

    /// Runs every check but those named.
    fn run(&self, words: &[&str]) {
        let program = schemathesis();
        let here = root().join("tests/openapi");
        let address = proxy::start(&self.server.socket());
        let work = self.server.home().beside("schemathesis");
        std::fs::create_dir_all(&work).expect("a directory");
        let output = Command::new(program)
            .current_dir(&work)
            .arg("--config-file")
            .arg(here.join("schemathesis.toml"))
            .args(["run", &format!("http://{address}/api/v1/openapi.json")])
            .args(["--checks", "all", "--request-timeout", "60", "--no-color"])
            .args(["--seed", &value("PINFOLD_SEED", SEED)])
            .args(["--max-examples", &value("PINFOLD_SCHEMATHESIS_EXAMPLES", EXAMPLES)])
            .args(words)
            .env("SCHEMATHESIS_HOOKS", here.join("hooks.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("schemathesis");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{told}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let info = self.server.api("GET", "/api/v1/server", None);
        assert_eq!(info.status, 200, "the server is well afterwards");
        assert!(!self.server.printed().contains("panicked"), "{}", self.server.printed());
    }
}

#[test]
fn the_api_keeps_to_its_document() {
    let fixture = Fixture::new();
    // Over the unix socket the kernel says who calls, whatever else is not sent.
    fixture.run(&["--exclude-checks", "ignored_auth"]);
    fixture.server.stop();
}
