//! The server's log: one JSON object a line, every request with its id, nothing secret.

use testkit::{Server, ServerOptions};

#[test]
fn every_line_is_json_and_nothing_secret_is_in_it() {
    let config = "[server]\nlog = \"debug\"\nlog_format = \"json\"\n".to_owned();
    let server = Server::with(ServerOptions { config, ..ServerOptions::default() });
    let value = "env-value-that-nobody-may-log";
    let env = format!("SECRET={value}");
    server.pinfold(&["create", "quiet", "--env", &env]).ok();
    server.pinfold(&["exec", "--env", &env, "quiet", "--", "true"]).ok();
    server.pinfold(&["run", "--env", &env, "--", "true"]).ok();
    let forged = "pf_user_tok_00000000000000000000_forgedforgedforgedforged";
    let request = format!(
        "GET /api/v1/server HTTP/1.1\r\nHost: pinfold\r\nConnection: close\r\n\
         Authorization: Bearer {forged}\r\n\r\n"
    );
    let refused = server.raw(request.as_bytes()).expect("a reply");
    assert_eq!(refused.status, 401);
    let id = refused
        .headers
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "))
        .expect("every reply has an id")
        .to_owned();
    let minted = server.pinfold(&["--json", "token", "create", "--scope", "workspace:read"]);
    let minted = (minted.code == 0).then(|| minted.json());
    let printed = server.printed();
    let lines: Vec<serde_json::Value> = printed
        .lines()
        .filter(|line| !line.starts_with("listening on "))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")))
        .collect();
    let requests: Vec<_> =
        lines.iter().filter(|line| line["fields"]["message"] == "request").collect();
    assert!(requests.len() >= 3, "{printed}");
    for line in &requests {
        let id = line["fields"]["id"].as_str().expect("an id");
        assert!(id.starts_with("req_"), "{line}");
    }
    let of_the_refused = lines.iter().filter(|line| line["fields"]["id"] == id.as_str()).count();
    assert!(of_the_refused >= 2, "its refusal and its end: {printed}");
    assert!(!printed.contains(value), "an environment's value was logged");
    assert!(!printed.contains(forged) && !printed.contains("forgedforged"), "a credential");
    if let Some(secret) = minted.as_ref().and_then(|minted| minted["secret"].as_str()) {
        assert!(!printed.contains(secret), "a token was logged");
    }
    server.stop();
}
