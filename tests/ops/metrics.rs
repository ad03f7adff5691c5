//! Metrics of the real server, the alert rules and the dashboard made of them.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use testkit::{Server, ServerOptions};

use crate::aside;

fn ops(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops").join(name)
}

/// With TLS, so that every number has something to say.
fn measured() -> Server {
    Server::with(ServerOptions {
        metrics: Some("127.0.0.1:0".into()),
        config: "[server]\ntls = \"local-ca\"\n".into(),
        listen: vec!["127.0.0.1:0".into()],
        ..ServerOptions::default()
    })
}

/// Where a server says that its metrics are.
pub(crate) fn place(server: &Server) -> String {
    aside::place(server, "metrics")
}

fn ask(place: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(place).expect("the metrics' listener");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
    let request = format!("{head} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply
}

pub(crate) fn numbers(place: &str) -> String {
    let reply = ask(place, "GET /metrics");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

fn promtool(words: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool of the package prometheus");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("fed");
    let done = child.wait_with_output().expect("our child");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success(), "promtool {words:?}: {said}");
    // A remark on a name or a missing help is a failure here, too.
    assert!(words[0] != "check" || words[1] != "metrics" || said.trim().is_empty(), "{said}");
}

/// Names of the series in the text format.
fn names(text: &str) -> BTreeSet<String> {
    let name = |line: &str| line.split(['{', ' ']).next().map(str::to_owned);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(name).collect()
}

/// The words of a text that are names of ours.
fn used(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("pinfold_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_numbers_are_valid_and_what_alerts_and_dashboard_ask_for_is_there() {
    let server = measured();
    let place = place(&server);
    let secret = "super-secret-value-4711";
    let env = format!("TOKEN={secret}");
    server.pinfold(&["create", "counted", "--env", &env]).ok();
    server.pinfold(&["exec", "counted", "--", "true"]).ok();
    assert_ne!(server.pinfold(&["info", "nobody-has-this-name"]).code, 0);
    let text = numbers(&place);
    promtool(&["check", "metrics"], &text);
    for line in [
        "pinfold_workspaces{state=\"running\"} 1.0",
        "pinfold_execs_started_total 1",
        "pinfold_requests_total{operation=\"workspace.create\",surface=\"unix\",status=\"2xx\"} 1",
        "pinfold_requests_total{operation=\"workspace.read\",surface=\"unix\",status=\"4xx\"} 1",
        "pinfold_refusals_total{code=\"not_found\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    // Nothing that a caller chose is in a label.
    for word in ["counted", "nobody-has-this-name", secret] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    let given = names(&text);
    for file in ["prometheus/alerts.yml", "grafana/pinfold.json"] {
        let asked = used(&std::fs::read_to_string(ops(file)).expect("a file"));
        let asked: Vec<_> = asked.into_iter().filter(|name| !given.contains(name)).collect();
        assert!(asked.is_empty(), "{file} asks for what nobody serves: {asked:?}");
    }
    server.stop();
}

/// The value of a number without labels.
fn number(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

const BEGINS: &str = "pinfold_tls_certificate_not_before_timestamp_seconds";
const ENDS: &str = "pinfold_tls_certificate_not_after_timestamp_seconds";
const DAY: f64 = 86_400.0;

#[test]
fn the_age_and_the_end_of_the_certificate_are_among_the_numbers() {
    let server = measured();
    let text = numbers(&place(&server));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    let (begins, ends) = (number(&text, BEGINS).expect("one"), number(&text, ENDS).expect("one"));
    assert!((now - 2.0 * DAY..now).contains(&begins), "{begins}");
    assert!((now + 28.0 * DAY..now + 31.0 * DAY).contains(&ends), "{ends}");
    server.stop();

    let plain = Server::with(ServerOptions {
        metrics: Some("127.0.0.1:0".into()),
        ..ServerOptions::default()
    });
    assert_eq!(number(&numbers(&place(&plain)), ENDS), None, "there is no certificate");
    plain.stop();
}

/// A certificate of the operator's own, good for so many days from now.
fn own_certificate(directory: &Path, days: u32) {
    let done = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-subj", "/CN=pinfold.example", "-days", &days.to_string()])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("openssl");
    assert!(done.success());
    let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(directory.join("key.pem"), only_ours).expect("our own file");
}

#[test]
fn a_renewed_certificate_is_seen_in_the_numbers() {
    let files = tempfile::tempdir().expect("a directory");
    own_certificate(files.path(), 10);
    let file = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let server = Server::with(ServerOptions {
        metrics: Some("127.0.0.1:0".into()),
        config: format!("[server]\ntls_cert = {certificate:?}\ntls_key = {key:?}\n"),
        listen: vec!["127.0.0.1:0".into()],
        ..ServerOptions::default()
    });
    let place = place(&server);
    let first = number(&numbers(&place), ENDS).expect("one");
    own_certificate(files.path(), 40);
    testkit::until("the renewed certificate", Duration::from_mins(1), || {
        let ends = number(&numbers(&place), ENDS).expect("one");
        (ends - first > 29.0 * DAY).then_some(())
    });
    server.stop();
}

#[test]
fn only_the_numbers_are_there_and_only_to_be_read() {
    let server = measured();
    let place = place(&server);
    assert!(ask(&place, "GET /").starts_with("HTTP/1.1 404"));
    assert!(ask(&place, "GET /api/v1/server").starts_with("HTTP/1.1 404"));
    assert!(ask(&place, "POST /metrics").starts_with("HTTP/1.1 405"));
    assert!(ask(&place, "DELETE /metrics").starts_with("HTTP/1.1 405"));
    // A page of somebody's whose name leads to this machine (DNS rebinding).
    let head = "GET /metrics HTTP/1.1\r\nHost: rebound.example:9090\r\nConnection: close";
    let mut stream = TcpStream::connect(&place).expect("the listener");
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    // Readers that say nothing are bounded, and cost the others nothing for long.
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(&place).expect("connected")).collect();
    assert!(numbers(&place).contains("pinfold_build_info"));
    drop(silent);
    server.stop();
}

#[test]
fn the_alert_rules_hold_what_they_promise() {
    let rules = ops("prometheus/alerts.yml");
    promtool(&["check", "rules", &rules.to_string_lossy()], "");
    let tests = ops("prometheus/alerts.test.yml");
    promtool(&["test", "rules", &tests.to_string_lossy()], "");
    let rules = std::fs::read_to_string(rules).expect("a file");
    let tests = std::fs::read_to_string(tests).expect("a file");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let tested = format!("alertname: {alert}");
        assert!(tests.contains(&tested), "{alert} has no test");
    }
}

#[test]
fn the_dashboard_is_whole() {
    let text = std::fs::read_to_string(ops("grafana/pinfold.json")).expect("a file");
    let board: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    assert!(panels.len() >= 10);
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().expect(title);
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            assert!(target["expr"].as_str().is_some_and(|e| e.contains("pinfold_")), "{title}");
        }
    }
}
