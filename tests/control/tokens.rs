//! Tokens: narrower only, gone within a second, never in a log, good after a restart.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::{client::text_frame, house::House};

/// Reads until the server ends the connection, or fails after the client's time limit.
fn until_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(err) => return err.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_revoked_or_expired_token_loses_its_open_streams() {
    let house = House::new("");
    let holder = house.token("holder", "{}");
    holder.post("/api/v1/workspaces", r#"{"name":"w"}"#).ok();
    let short = r#"{"name":"short","same_principal":true,"expires_ms":2500}"#;
    for (name, body) in [("child", r#"{"name":"child","same_principal":true}"#), ("short", short)] {
        let child = house.minted(&holder, body);
        let (answer, mut stream) = child.upgrade("/api/v1/workspaces/w/exec");
        assert_eq!(answer.status, 101, "{answer:?}");
        stream
            .write_all(&text_frame(r#"{"command":{"argv":["sleep","1000"]},"stdin":true}"#))
            .expect("sent");
        let mut first = [0; 2];
        stream.read_exact(&mut first).expect("it started");
        if name == "child" {
            house.server.pinfold(&["token", "revoke", "child"]).ok();
        }
        assert!(until_closed(&mut stream), "the stream of {name} outlived it");
        assert_eq!(child.get("/api/v1/whoami").status, 401);
    }
    // What is made with a token ends with it.
    let parent = house.token("parent", "{}");
    let grandchild = house.minted(&parent, r#"{"name":"grandchild"}"#);
    assert_eq!(grandchild.get("/api/v1/whoami").status, 200);
    house.server.pinfold(&["token", "revoke", "parent"]).ok();
    assert_eq!(grandchild.get("/api/v1/whoami").status, 401);
    house.server.stop();
}

#[test]
fn a_token_makes_only_narrower_ones() {
    let house = House::new("");
    let narrow = house.token("narrow", r#"{"scopes":["workspace:read","token:create"]}"#);
    for (wider, status) in [
        (r#"{"name":"a","scopes":["workspace:create"]}"#, 403),
        (r#"{"name":"a","scopes":["workspace:*"]}"#, 403),
        (r#"{"name":"a","scopes":["*"]}"#, 403),
        (r#"{"name":"a","reach":"all"}"#, 403),
        (r#"{"name":"a","scopes":["workspace:write"]}"#, 400),
        (r#"{"name":"","scopes":[]}"#, 400),
        (r#"{"name":"a","expires_ms":0}"#, 400),
        (r#"{"name":"a","workspaces":["nothing"]}"#, 404),
    ] {
        let answer = narrow.post("/api/v1/tokens", wider);
        assert_eq!(answer.status, status, "{wider}: {}", answer.body);
    }
    let child = house.minted(&narrow, r#"{"name":"child","scopes":["workspace:read"]}"#);
    assert_eq!(child.get("/api/v1/workspaces").status, 200);
    assert_eq!(child.post("/api/v1/tokens", r#"{"name":"b"}"#).status, 403);
    // A child does not outlive its maker.
    let ending = house.token("ending", r#"{"expires_ms":3600000}"#);
    let made = ending.post("/api/v1/tokens", r#"{"name":"c","expires_ms":7200000}"#).ok();
    let own = ending.get("/api/v1/whoami").ok();
    let maker = house.owner(&format!("/api/v1/tokens/{}", own["token"].as_str().expect("an id")));
    assert_eq!(made["info"]["expires_at"], maker["expires_at"]);
    house.server.stop();
}

#[test]
fn no_part_of_a_token_is_in_any_file_of_the_home() {
    let house = House::new("[server]\nlog = \"trace\"\n");
    let mut secrets = Vec::new();
    for number in 0..3 {
        let body = serde_json::json!({"name": format!("t{number}")});
        let made = house.server.api("POST", "/api/v1/tokens", Some(&body)).json();
        let text = made["token"].as_str().expect("a token").to_owned();
        let client = house.client(Some(&text));
        assert_eq!(client.get("/api/v1/whoami").status, 200);
        let mut wrong = text.clone();
        wrong.truncate(text.len() - 9);
        let stranger = house.client(Some(&wrong));
        assert_eq!(stranger.get("/api/v1/whoami").status, 401);
        secrets.push(text.rsplit('_').next().expect("a secret")[..16].to_owned());
    }
    house.server.pinfold(&["token", "revoke", "t0"]).ok();
    let home = house.server.home().path().to_owned();
    let mut looked = 0;
    let mut left = vec![home];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() && entry.file_name() != "pool" {
                left.push(entry.path());
            } else if kind.is_file() && entry.metadata().expect("facts").len() < 64 << 20 {
                let bytes = std::fs::read(entry.path()).expect("readable");
                looked += 1;
                for secret in &secrets {
                    let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                    assert!(!found, "{} holds a token", entry.path().display());
                }
            }
        }
    }
    assert!(looked >= 4, "the database, the logs and the audit log were looked at");
    house.server.stop();
}

#[test]
fn tokens_rates_and_the_log_stand_after_a_crash() {
    let mut house = House::new("[rates.tokens]\ncreate = { per_second = 1, burst = 4 }\n");
    let made =
        house.server.api("POST", "/api/v1/tokens", Some(&serde_json::json!({"name": "kept"})));
    let text = made.json()["token"].as_str().expect("a token").to_owned();
    let client = house.client(Some(&text));
    let session = |client: &crate::client::Client| client.post("/api/v1/sessions", "{}");
    let mut made = 0;
    let refused = loop {
        let answer = session(&client);
        if answer.status != 201 {
            break answer;
        }
        made += 1;
        assert!(made < 100, "never refused");
    };
    assert!(made >= 4, "{made}");
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    // Told on every answer that is counted.
    let told = client.get("/api/v1/whoami").head;
    assert!(told.contains("ratelimit-limit: 2000") && told.contains("ratelimit-remaining:"));
    house.server.kill();
    house.server.start_again();
    let client = house.client(Some(&text));
    assert_eq!(client.get("/api/v1/whoami").status, 200, "a token outlives the server");
    let mut again = 0;
    while session(&client).status == 201 {
        again += 1;
        assert!(again < 100, "never refused");
    }
    assert!(again <= 3, "{again} at once after a crash: the bucket was not full");
    assert_eq!(house.owner("/api/v1/audit/verify")["whole"], true);
    house.server.stop();
}

#[test]
fn a_terminal_needs_its_scope_and_a_foreign_page_is_written_down() {
    let house = House::new("");
    let holder = house.token("holder", "{}");
    holder.post("/api/v1/workspaces", r#"{"name":"w"}"#).ok();
    let plain = r#"{"name":"plain","same_principal":true,"scopes":["exec:run","exec:read"]}"#;
    let plain = house.minted(&holder, plain);
    let path = "/api/v1/workspaces/w/execs";
    let tty = r#"{"command":{"argv":["sleep","100"]},"tty":{"rows":24,"cols":80}}"#;
    let refused = plain.post(path, tty);
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.contains("exec:terminal"), "{}", refused.body);
    plain.post(path, r#"{"command":{"argv":["true"]}}"#).ok();
    let opened = holder.post(path, tty).ok();
    let output = format!("{path}/{}/output", opened["id"].as_str().expect("an id"));
    assert_eq!(plain.get(&output).status, 403, "nor is one that another opened joined");

    let foreign = holder.call_with("POST", path, "Origin: https://evil.example\r\n", Some("{}"));
    assert_eq!(foreign.status, 403, "{}", foreign.body);
    let records = testkit::until("the record", std::time::Duration::from_secs(10), || {
        let records = house.owner("/api/v1/audit?limit=1000");
        let all = records.as_array().expect("records").clone();
        all.into_iter().find(|record| record["operation"] == "site.refused")
    });
    assert_eq!((&records["surface"], &records["outcome"]), (&"http".into(), &"forbidden".into()));
    house.server.stop();
}
