//! Who holds how much, and who owns what.

use std::sync::Barrier;

use crate::house::House;

#[test]
fn a_quota_holds_against_a_crowd_and_a_crash_neither_loses_nor_doubles_it() {
    let mut house = House::new("");
    let body = serde_json::json!({"name": "crowd", "quota": {"workspaces": 3}});
    let made = house.server.api("POST", "/api/v1/tokens", Some(&body)).json();
    let text = made["token"].as_str().expect("a token").to_owned();
    let client = house.client(Some(&text));
    // A principal below it draws on the same quota.
    let below = house.minted(&client, r#"{"name":"below"}"#);
    let barrier = Barrier::new(8);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|number| {
                let caller = if number % 2 == 0 { &client } else { &below };
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    caller.post("/api/v1/workspaces", "{}").status
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(429)), (3, 5), "{statuses:?}");
    assert_eq!(client.get("/api/v1/whoami").ok()["usage"]["workspaces"], 3);
    house.server.kill();
    house.server.start_again();
    let client = house.client(Some(&text));
    assert_eq!(client.get("/api/v1/whoami").ok()["usage"]["workspaces"], 3, "after a crash");
    let refused = client.post("/api/v1/workspaces", "{}");
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("3 of 3"), "{}", refused.body);
    let page = client.get("/api/v1/workspaces").ok();
    let first = page["items"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/workspaces/{first}");
    let forks = client.post(&format!("{path}/fork"), r#"{"count":2}"#);
    assert_eq!(forks.status, 429, "a fork is a workspace: {}", forks.body);
    assert_eq!(client.call("DELETE", &path, None).status, 204);
    client.post("/api/v1/workspaces", "{}").ok();
    // What has no limit of a kind cannot stand under a quota on it.
    let cpus = house.token("cpus", r#"{"quota":{"cpu_millis":1000}}"#);
    let open = cpus.post("/api/v1/workspaces", "{}");
    assert_eq!(open.status, 429);
    assert!(open.body.contains("ask for a limit: cpu_millis"), "{}", open.body);
    let fits = r#"{"limits":{"cpu_millis":600}}"#;
    cpus.post("/api/v1/workspaces", fits).ok();
    assert_eq!(cpus.post("/api/v1/workspaces", fits).status, 429);
    house.server.stop();
}

#[test]
fn a_quota_on_snapshots_holds_against_a_crowd_and_gives_back_what_is_removed() {
    let house = House::new("");
    let body = serde_json::json!({"name": "crowd", "quota": {"snapshots": 2}});
    let made = house.server.api("POST", "/api/v1/tokens", Some(&body)).json();
    let client = house.client(Some(made["token"].as_str().expect("a token")));
    let below = house.minted(&client, r#"{"name":"below"}"#);
    // Two workspaces of each: a workspace's own snapshots wait for one another anyway.
    let paths: Vec<String> = [&client, &below, &client, &below]
        .map(|caller| {
            let made = caller.post("/api/v1/workspaces", "{}").ok();
            format!("/api/v1/workspaces/{}/snapshots", made["id"].as_str().expect("an id"))
        })
        .into();
    let barrier = Barrier::new(8);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|number| {
                let caller = if number % 2 == 0 { &client } else { &below };
                let (barrier, path) = (&barrier, &paths[number % 4]);
                scope.spawn(move || {
                    barrier.wait();
                    caller.post(path, "{}").status
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(429)), (2, 6), "{statuses:?}");
    let page = client.get("/api/v1/snapshots").ok();
    let all = page["items"].as_array().expect("items");
    assert_eq!(all.len(), 2, "{page}");
    let first = format!("/api/v1/snapshots/{}", all[0]["id"].as_str().expect("an id"));
    assert_eq!(client.call("DELETE", &first, None).status, 200);
    client.post(&paths[0], "{}").ok();
    let refused = below.post(&paths[1], "{}");
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("2 of 2"), "{}", refused.body);
    house.server.stop();
}

#[test]
fn a_quota_on_the_space_of_snapshots_counts_what_they_can_reach() {
    let house = House::new("");
    let client = house.token("keeper", r#"{"quota":{"snapshot_bytes":6291456}}"#);
    let made = client.post("/api/v1/workspaces", r#"{"name":"keeper"}"#).ok();
    let path = format!("/api/v1/workspaces/{}/snapshots", made["id"].as_str().expect("an id"));
    let write = "head -c 4194304 /dev/urandom > /root/file && sync";
    house.server.pinfold(&["exec", "keeper", "--", "sh", "-c", write]).ok();
    let first = client.post(&path, "{}").ok();
    // Two that share everything: neither holds it alone, and it counts for both.
    let refused = client.post(&path, "{}");
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.body.contains("snapshot_bytes"), "{}", refused.body);
    let left = client.get("/api/v1/snapshots").ok();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "it is gone again: {left}");
    // The workspace gives nothing back when it goes: its snapshot has all of it.
    let workspace = format!("/api/v1/workspaces/{}", made["id"].as_str().expect("an id"));
    assert_eq!(client.call("DELETE", &workspace, None).status, 204);
    let first = first["id"].as_str().expect("an id");
    let forks = client.post(&format!("/api/v1/snapshots/{first}/fork"), r#"{"count":1}"#).ok();
    let fork = forks[0]["workspace"]["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/workspaces/{fork}/snapshots");
    assert_eq!(client.post(&path, "{}").status, 429);
    assert_eq!(client.call("DELETE", &format!("/api/v1/snapshots/{first}"), None).status, 200);
    client.post(&path, "{}").ok();
    house.server.stop();
}

#[test]
fn of_two_who_adopt_one_gets_it_and_a_live_session_loses_nothing() {
    let mut house = House::new("[sessions]\nstale_ms = 60000\n");
    let body = serde_json::json!({"name": "agent"});
    let made = house.server.api("POST", "/api/v1/tokens", Some(&body)).json();
    let text = made["token"].as_str().expect("a token").to_owned();
    let agent = house.client(Some(&text));
    let begin = || {
        let made = agent.post("/api/v1/sessions", r#"{"client":"test"}"#).ok();
        made["id"].as_str().expect("an id").to_owned()
    };
    let header = |session: &str| format!("Pinfold-Session: {session}\r\n");
    let sessions: Vec<String> = (0..3).map(|_| begin()).collect();
    let create = agent.call_with(
        "POST",
        "/api/v1/workspaces",
        &header(&sessions[0]),
        Some(r#"{"name":"w"}"#),
    );
    assert_eq!(create.ok()["session"], sessions[0].as_str());
    // Another live session of the same principal may look, and change nothing.
    let others = header(&sessions[1]);
    let read = agent.call_with("GET", "/api/v1/workspaces/w", &others, None);
    assert_eq!(read.status, 200);
    let stop = agent.call_with("POST", "/api/v1/workspaces/w/stop", &others, None);
    assert_eq!(stop.status, 409, "{}", stop.body);
    let adopt = |session: &str| {
        let body = Some(r#"{"workspace":"w"}"#);
        agent.call_with("POST", "/api/v1/sessions/adopt", &header(session), body)
    };
    assert_eq!(adopt(&sessions[1]).status, 409, "it belongs to a live session");
    // Its session says goodbye: of two who want it, one gets it.
    let end = agent.call("DELETE", &format!("/api/v1/sessions/{}", sessions[0]), None);
    assert_eq!(end.status, 204);
    let barrier = Barrier::new(2);
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let both: Vec<_> = sessions[1..]
            .iter()
            .map(|session| {
                let (barrier, adopt) = (&barrier, &adopt);
                scope.spawn(move || {
                    barrier.wait();
                    adopt(session).status
                })
            })
            .collect();
        both.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let owner = agent.get("/api/v1/workspaces/w").ok()["session"].as_str().map(str::to_owned);
    let owner = owner.expect("somebody's");
    // Nobody else's session, and none that a client made up, is anybody's.
    let stranger = house.token("stranger", "{}");
    for (client, session) in
        [(&stranger, owner.as_str()), (&agent, "sess_01k8y6f5t0e8jb4yy1w3gq7m2s")]
    {
        let refused = client.call_with("GET", "/api/v1/workspaces", &header(session), None);
        assert_eq!(refused.status, 404, "{}", refused.body);
    }
    // After a crash it is still the same one's, and still defended.
    house.server.kill();
    house.server.start_again();
    let agent = house.client(Some(&text));
    let after = agent.get("/api/v1/workspaces/w").ok();
    assert_eq!(after["session"], owner.as_str());
    let other = sessions[1..].iter().find(|session| **session != owner).expect("the other");
    let stop = agent.call_with("POST", "/api/v1/workspaces/w/stop", &header(other), None);
    assert_eq!(stop.status, 409, "nothing is stolen after a restart: {}", stop.body);
    // One's own session can be taken over at once, because nothing is in flight in it.
    let takeover = format!("/api/v1/sessions/{owner}/takeover");
    let taken = agent.call_with("POST", &takeover, &header(other), None);
    assert_eq!(taken.ok()["workspaces"].as_array().map(Vec::len), Some(1));
    house.server.stop();
}
