//! The API against its own document: schemathesis reads what a running server serves as
//! `/api/v1/openapi.json` and sends what the document allows and what it forbids.
//!
//! `PINFOLD_SCHEMATHESIS_EXAMPLES` and `PINFOLD_SEED` change how much and what.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use testkit::{Server, ServerOptions};

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

/// A server with a workspace, a snapshot of it, a workspace to be ended, a session, and a token of
/// its owner that is not held back by rates.
struct Fixture {
    server: Server,
    token: String,
    env: Vec<(&'static str, String)>,
}

impl Fixture {
    fn new() -> Self {
        let server = Server::with(ServerOptions {
            config: "[rates.tokens]\n".to_owned(),
            listen: vec!["127.0.0.1:0".to_owned()],
            ..ServerOptions::default()
        });
        server.pinfold(&["create", "fixture"]).ok();
        server.pinfold(&["create", "victim"]).ok();
        let make = |path: &str, body: Value| {
            let made = server.api("POST", path, Some(&body));
            assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
            made.json()
        };
        let snapshot = make("/api/v1/workspaces/fixture/snapshots", json!({}));
        let session = make("/api/v1/sessions", json!({ "client": "schemathesis" }));
        let token = make("/api/v1/tokens", json!({ "name": "fixture", "same_principal": true }));
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let env = vec![
            ("PINFOLD_WORKSPACE", "fixture".to_owned()),
            ("PINFOLD_VICTIM", "victim".to_owned()),
            ("PINFOLD_SNAPSHOT", text(&snapshot["id"])),
            ("PINFOLD_SESSION", text(&session["id"])),
        ];
        Self { token: text(&token["token"]), server, env }
    }

    /// Runs every check, with these words and environment beside.
    fn run(&self, words: &[&str], env: &[(&str, &str)]) {
        let here = root().join("tests/openapi");
        let address = self.server.tcp().first().copied().expect("it listens on TCP");
        let work = self.server.home().beside("schemathesis");
        std::fs::create_dir_all(&work).expect("a directory");
        // Read over the unix socket: over TCP nobody without a credential is given it.
        let document = self.server.api("GET", "/api/v1/openapi.json", None);
        assert_eq!(document.status, 200);
        std::fs::write(work.join("openapi.json"), &document.body).expect("a file");
        let output = Command::new(schemathesis())
            .current_dir(&work)
            .arg("--config-file")
            .arg(here.join("schemathesis.toml"))
            .args(["run", "openapi.json", "--url", &format!("http://{address}")])
            .args(["--checks", "all", "--request-timeout", "60", "--no-color"])
            .args(["--seed", &value("PINFOLD_SEED", SEED)])
            .args(["--max-examples", &value("PINFOLD_SCHEMATHESIS_EXAMPLES", EXAMPLES)])
            .args(words)
            .env("SCHEMATHESIS_HOOKS", here.join("hooks.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(env.iter().copied())
            .output()
            .expect("schemathesis");
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
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
    let credential = format!("Authorization: Bearer {}", fixture.token);
    fixture.run(&["--header", &credential], &[]);
    fixture.server.stop();
}

#[test]
fn without_a_credential_every_operation_is_401_and_a_problem() {
    let fixture = Fixture::new();
    fixture.run(&[], &[("PINFOLD_ANONYMOUS", "1")]);
    fixture.server.stop();
}
