//! Programs inside a workspace: with `self_access` they may do a few things to it and nothing
//! else, over a socket of their own, with a token that ends with the boot (AUTH-08).

use serde_json::{Value, json};

use crate::{client::Client, house::House};

/// Runs a line in a workspace, and gives what it printed.
fn inside(house: &House, workspace: &str, line: &str) -> String {
    let ran = house.server.pinfold(&["exec", workspace, "--", "/bin/sh", "-c", line]);
    ran.ok().trim().to_owned()
}

/// Status and body of a request from inside. `credential` is a line of shell that is the header.
fn ask(house: &House, workspace: &str, credential: &str, request: &str) -> (u16, String) {
    let said = inside(
        house,
        workspace,
        &format!(
            "curl -s -w '\\n%{{http_code}}' --unix-socket \"$PINFOLD_SOCKET\" {credential} {request}"
        ),
    );
    let (body, status) = said.rsplit_once('\n').unwrap_or(("", &said));
    (status.parse().unwrap_or_else(|_| panic!("{said}")), body.to_owned())
}

const OWN: &str = "-H \"Authorization: Bearer $PINFOLD_TOKEN\"";

fn url(path: &str) -> String {
    format!("http://pinfold/api/v1{path}")
}

fn made(holder: &Client, body: &Value) -> String {
    let made = holder.post("/api/v1/workspaces", &body.to_string()).ok();
    made["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_program_inside_forks_its_own_workspace_and_does_nothing_else() {
    let mut house = House::new("");
    let made_token =
        house.server.api("POST", "/api/v1/tokens", Some(&json!({"name": "holder"}))).json();
    let text = made_token["token"].as_str().expect("a token").to_owned();
    let holder = house.client(Some(&text));
    let own = made(&holder, &json!({"name": "own", "self_access": true}));
    let other = made(&holder, &json!({"name": "other", "self_access": true}));
    made(&holder, &json!({"name": "plain"}));
    assert_eq!(
        inside(&house, "plain", "echo ${PINFOLD_TOKEN-none} ${PINFOLD_SOCKET-none}"),
        "none none"
    );

    let (status, body) = ask(&house, "own", OWN, &url("/workspaces/own"));
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["id"], own);
    let fork = format!(
        "-X POST -H 'Content-Type: application/json' -d '{{\"name\":\"child\"}}' {}",
        url("/workspaces/own/fork")
    );
    let (status, body) = ask(&house, "own", OWN, &fork);
    assert_eq!(status, 200, "{body}");
    let whose = |name: &str| holder.get(&format!("/api/v1/workspaces/{name}")).ok();
    assert_eq!(whose("child")["owner"], whose("own")["owner"], "it is its source's holder's");
    // The child has a way in of its own, and no more rights than its source.
    assert_eq!(ask(&house, "child", OWN, &url("/workspaces/child")).0, 200);
    assert_eq!(ask(&house, "child", OWN, &url("/workspaces/own")).0, 404);

    for (credential, path, status) in [
        (OWN, url("/workspaces/other"), 404),
        (OWN, url("/workspaces"), 403),
        (OWN, url("/tokens"), 403),
        (OWN, url("/workspaces/own/files/content?path=/etc/hostname"), 403),
        (OWN, format!("-X DELETE {}", url("/workspaces/own")), 403),
        ("", url("/workspaces/own"), 401),
        ("", url("/whoami"), 401),
    ] {
        let (found, body) = ask(&house, "own", credential, &path);
        assert_eq!(found, status, "{path}: {body}");
    }
    // Neither a token of people nor a neighbour's is anybody here.
    let stolen = inside(&house, &other, "echo $PINFOLD_TOKEN");
    for token in [&text, &stolen] {
        let header = format!("-H 'Authorization: Bearer {token}'");
        assert_eq!(ask(&house, "own", &header, &url("/whoami")).0, 401);
    }

    // The same boot has the same way, whichever server answers.
    house.server.kill();
    house.server.start_again();
    let token = inside(&house, "own", "echo $PINFOLD_TOKEN");
    assert_eq!(ask(&house, "own", OWN, &url("/workspaces/own")).0, 200);
    // The next boot has another.
    house.server.pinfold(&["stop", "own"]).ok();
    let over = house.client(Some(&token));
    testkit::until("the token to end", std::time::Duration::from_secs(10), || {
        (over.get("/api/v1/whoami").status == 401).then_some(())
    });
    let () = ();
    house.server.pinfold(&["start", "own"]).ok();
    assert_ne!(inside(&house, "own", "echo $PINFOLD_TOKEN"), token);
    assert_eq!(ask(&house, "own", OWN, &url("/workspaces/own")).0, 200);

    let records = house.owner("/api/v1/audit?limit=1000");
    let surfaces = records.as_array().expect("records").iter();
    assert!(
        surfaces.clone().any(|r| r["surface"] == "inside" && r["operation"] == "workspace.fork")
    );
    assert!(surfaces.clone().any(|r| r["operation"] == "workspace.token"));
    assert!(!records.to_string().contains(&token[8..]), "no part of a token is in the log");
    house.server.stop();
}

#[test]
fn an_operator_can_forbid_it() {
    let house = House::new("[workspaces]\nforbid_self_access = true\n");
    let holder = house.token("holder", "{}");
    let refused = holder.post("/api/v1/workspaces", r#"{"self_access":true}"#);
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.contains("forbid_self_access"), "{}", refused.body);
    house.server.stop();
}
