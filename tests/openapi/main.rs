//! The API against its own document: schemathesis reads what a running server serves as
//! `/api/v1/openapi.json` and sends what the document allows and what it forbids.
//!
//! An ordinary run is a seeded sample. `PINFOLD_SEED` changes its seed, and
//! `PINFOLD_SCHEMATHESIS_EXAMPLES` makes it a long one: every phase, with as many cases.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use testkit::{Server, ServerOptions};

/// Random cases of each operation in an ordinary run, beside those that the coverage phase derives
/// from the document.
const EXAMPLES: &str = "2";
/// Where randomness begins in an ordinary run.
const SEED: &str = "7";
/// No rate holds a case back, and no stream of events keeps one waiting: each ends by age.
fn config() -> String {
    let mut config = "[streams]\nmax_age_ms = 500\n".to_owned();
    for whose in ["tokens", "global"] {
        writeln!(config, "[rates.{whose}]").expect("a text");
        for class in ["create", "exec", "default", "login", "stream"] {
            let rate = "{ per_second = 1000000, burst = 1000000 }";
            writeln!(config, "{class} = {rate}").expect("a text");
        }
    }
    config
}

/// Operations that no case gets as far as: a WebSocket begins with a handshake that schemathesis
/// cannot make.
const NEVER: [&str; 6] =
    ["exec.attach", "exec.run", "file.watch", "mcp.connect", "port.connect", "workspace.run"];
/// A command of the fixture: it keeps the files there that cases move and remove, and listens.
const BUSY: &str = "while :; do touch /tmp/here /tmp/there /tmp/chmod; sleep 0.2; done & exec perl \
                    -MIO::Socket::INET -e '$l = IO::Socket::INET->new(Listen => 9, LocalAddr => \
                    \"127.0.0.1:8000\", ReuseAddr => 1) or die; while ($c = $l->accept) { close $c }'";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The program, installed if need be.
fn schemathesis() -> PathBuf {
    let output = Command::new(root().join("scripts/schemathesis")).output().expect("the script");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// A server with a workspace that does something, a snapshot of it, a workspace to be ended, a
/// session, an image, and a token of its owner that is not held back by rates. All of it, and all
/// that cases make, goes with the server's home.
struct Fixture {
    server: Server,
    token: String,
    objects: Value,
}

/// Answers by operation and class of status.
type Counts = BTreeMap<String, BTreeMap<String, u64>>;

impl Fixture {
    fn new() -> Self {
        let server = Server::with(ServerOptions {
            config: config(),
            listen: vec!["127.0.0.1:0".to_owned()],
            ..ServerOptions::default()
        });
        server.pinfold(&["create", "fixture"]).ok();
        server.pinfold(&["create", "victim"]).ok();
        let make = |path: &str, body: Value| {
            let made = server.api("POST", &format!("/api/v1/{path}"), Some(&body));
            assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
            made.json()
        };
        let snapshot = make("workspaces/fixture/snapshots", json!({}));
        let other = make("workspaces/victim/snapshots", json!({}));
        let session = make("sessions", json!({ "client": "schemathesis" }));
        let token =
            make("tokens", json!({ "name": "fixture", "same_principal": true, "reach": "all" }));
        let busy = json!({ "command": { "shell": BUSY }, "background": true });
        let exec = make("workspaces/fixture/execs", busy);
        let objects = json!({
            "workspace": "fixture",
            "victim": "victim",
            "snapshot": snapshot["id"],
            "victim_snapshot": other["id"],
            "session": session["id"],
            "exec": exec["id"],
            "port": 8000,
            "token": "fixture",
            "image": "tiny",
        });
        let token = token["token"].as_str().expect("text").to_owned();
        Self { server, token, objects }
    }

    /// Runs every check, with these words and environment beside, and gives what was answered.
    fn run(&self, words: &[&str], env: &[(&str, &str)]) -> Counts {
        let here = root().join("tests/openapi");
        let address = self.server.tcp().first().copied().expect("it listens on TCP");
        let url = format!("http://{address}");
        let work = self.server.home().beside("schemathesis");
        std::fs::create_dir_all(&work).expect("a directory");
        // Read over the unix socket: over TCP nobody without a credential is given it.
        let document = self.server.api("GET", "/api/v1/openapi.json", None);
        assert_eq!(document.status, 200);
        std::fs::write(work.join("openapi.json"), &document.body).expect("a file");
        let long = std::env::var("PINFOLD_SCHEMATHESIS_EXAMPLES").ok();
        let phases = match long {
            Some(_) => "examples,coverage,fuzzing,stateful",
            None => "coverage,fuzzing",
        };
        let output = Command::new(schemathesis())
            .current_dir(&work)
            .arg("--config-file")
            .arg(here.join("schemathesis.toml"))
            .args(["run", "openapi.json", "--url", &url])
            // Every check is on unless the configuration says otherwise; asked for here, none could be.
            .args(["--request-timeout", "60", "--no-color"])
            .args(["--seed", &std::env::var("PINFOLD_SEED").unwrap_or_else(|_| SEED.to_owned())])
            .args(["--max-examples", long.as_deref().unwrap_or(EXAMPLES), "--phases", phases])
            .args(words)
            .env("SCHEMATHESIS_HOOKS", here.join("hooks.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PINFOLD_URL", &url)
            .env("PINFOLD_TOKEN", &self.token)
            .env("PINFOLD_FIXTURE", self.objects.to_string())
            .env("PINFOLD_COUNTS", work.join("counts.json"))
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
        let counts = std::fs::read(work.join("counts.json")).expect("the counts");
        serde_json::from_slice(&counts).expect("counts by operation")
    }
}

fn all(counts: &Counts) -> u64 {
    counts.values().flat_map(BTreeMap::values).sum()
}

#[test]
fn the_api_keeps_to_its_document() {
    let fixture = Fixture::new();
    let credential = format!("Authorization: Bearer {}", fixture.token);
    let counts = fixture.run(&["--header", &credential], &[]);
    let done = |answers: &BTreeMap<String, u64>| -> u64 {
        ["2xx", "3xx"].iter().filter_map(|class| answers.get(*class)).sum()
    };
    for (operation, answers) in &counts {
        println!("{operation}: {} of {} done", done(answers), answers.values().sum::<u64>());
    }
    println!("{} operations, {} cases", counts.len(), all(&counts));
    let never: Vec<&str> = counts
        .iter()
        .filter(|(_, answers)| done(answers) == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(never, NEVER, "cases got as far as with all others");
    let operations = fixture.server.api("GET", "/api/v1/operations", None).json();
    assert_eq!(counts.len(), operations.as_array().map_or(0, Vec::len), "every operation is asked");
    fixture.server.stop();
}

#[test]
fn without_a_credential_every_operation_is_401_and_a_problem() {
    let fixture = Fixture::new();
    let counts = fixture.run(&[], &[("PINFOLD_ANONYMOUS", "1")]);
    println!("{} operations, {} cases", counts.len(), all(&counts));
    fixture.server.stop();
}
