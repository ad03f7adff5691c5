//! Server-sent events: each sees its own, a client that comes back misses nothing, and a
//! credential that ends takes its streams along.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
};

use serde_json::Value;

use crate::{client::Client, house::House};

/// An open stream of events.
struct Events(BufReader<TcpStream>);

/// One of them.
#[derive(Debug)]
struct Event {
    id: Option<i64>,
    kind: String,
    data: Value,
}

impl Events {
    #[track_caller]
    fn open(client: &Client, path: &str, last: Option<i64>) -> Self {
        let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let (answer, stream) = client.open(path, &last);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
        Self(BufReader::new(stream))
    }

    /// The next event; `None` when the server has ended the stream.
    fn next(&mut self) -> Option<Event> {
        let mut event = Event { id: None, kind: String::new(), data: Value::Null };
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            // Lengths of chunks stand between; they have no colon.
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => event.id = Some(id.parse().expect("a number")),
                Some(("event", kind)) => kind.clone_into(&mut event.kind),
                Some(("data", data)) => {
                    event.data = serde_json::from_str(data).expect("JSON");
                    return Some(event);
                }
                _ => {}
            }
        }
    }

    /// The next event of a kind that is an end.
    fn ended(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().expect("the stream goes on");
            if event.kind == kind && event.data["detail"].get("outcome").is_some() {
                return event;
            }
        }
    }
}

#[test]
fn everybody_hears_of_their_own_and_misses_nothing_after_a_crash() {
    let mut house = House::new("");
    let made = house.server.api("POST", "/api/v1/tokens", Some(&serde_json::json!({"name": "a"})));
    let text = made.json()["token"].as_str().expect("a token").to_owned();
    let one = house.client(Some(&text));
    let other = house.token("other", "{}");
    let deaf = house.token("deaf", r#"{"scopes":["workspace:*"]}"#);
    assert_eq!(deaf.get("/api/v1/events").status, 403);
    assert_eq!(one.get("/api/v1/events?after=x").status, 400);
    assert_eq!(
        one.call_with("GET", "/api/v1/events", "Last-Event-ID: 1; DROP\r\n", None).status,
        400
    );

    let mut events = Events::open(&one, "/api/v1/events", None);
    other.post("/api/v1/workspaces", r#"{"name":"theirs"}"#).ok();
    let mine = one.post("/api/v1/workspaces", r#"{"name":"mine"}"#).ok();
    let first = events.next().expect("an event");
    assert_eq!(first.kind, "workspace.create", "{first:?}");
    let created = events.ended("workspace.create");
    assert_eq!(created.data["object"], mine["id"], "what others do is not heard of");
    assert_eq!(created.data["seq"], created.id.expect("numbered"));

    // The owner ends it: whose it was hears of that, though it is gone.
    house.server.api("DELETE", "/api/v1/workspaces/mine", None);
    let gone = events.ended("workspace.destroy");
    assert_eq!(
        (gone.data["object"].clone(), &gone.data["detail"]["outcome"]),
        (mine["id"].clone(), &Value::from("ok"))
    );

    // After a crash a client says what it saw last, and gets what came after it.
    one.post("/api/v1/workspaces", r#"{"name":"late"}"#).ok();
    let late = events.ended("workspace.create");
    house.server.kill();
    while events.next().is_some() {}
    house.server.start_again();
    let one = house.client(Some(&text));
    let mut again = Events::open(&one, "/api/v1/events", gone.id);
    let resumed = again.ended("workspace.create");
    assert_eq!((resumed.id, resumed.data), (late.id, late.data));
    let mut newer = Events::open(&one, "/api/v1/events?after=0", late.id);
    one.call("DELETE", "/api/v1/workspaces/late", None);
    let next = newer.next().expect("an event");
    assert!(next.id > late.id && next.kind == "workspace.destroy", "{next:?}");

    house.server.pinfold(&["token", "revoke", "a"]).ok();
    while again.next().is_some() {}
    while newer.next().is_some() {}
    house.server.stop();
}

#[test]
fn a_commands_output_is_followed_and_resumed() {
    let house = House::new("");
    let holder = house.token("holder", "{}");
    holder.post("/api/v1/workspaces", r#"{"name":"w"}"#).ok();
    let start = |script: &str| {
        let body = serde_json::json!({"command": {"argv": ["/bin/sh", "-c", script]}});
        let started = holder.post("/api/v1/workspaces/w/execs", &body.to_string()).ok();
        let id = started["id"].as_str().expect("an id").to_owned();
        format!("/api/v1/workspaces/w/execs/{id}/output")
    };
    let path = start("printf one; printf two >&2; sleep 0.2; printf three; exit 7");
    let told = |mut events: Events| {
        let (mut text, mut ids, mut end) = (String::new(), Vec::new(), Value::Null);
        while let Some(event) = events.next() {
            ids.extend(event.id);
            match event.kind.as_str() {
                "stdout" | "stderr" => {
                    let data = event.data["data_base64"].as_str().expect("text").as_bytes();
                    let bytes = data_encoding::BASE64.decode(data).expect("base64");
                    let offset = event.data["offset"].as_u64().expect("a number");
                    assert_eq!(offset, text.len() as u64, "nothing is left out");
                    text.push_str(&String::from_utf8(bytes).expect("text"));
                    assert_eq!(event.id, i64::try_from(text.len()).ok());
                }
                "exited" => end = event.data,
                "started" => {}
                other => panic!("{other}"),
            }
        }
        (text, ids, end)
    };
    let (text, ids, end) = told(Events::open(&holder, &path, None));
    assert_eq!(text.len(), 11, "{text}");
    assert!(text.contains("one") && text.contains("two") && text.ends_with("three"), "{text}");
    assert_eq!(end["result"]["exit_code"], 7, "{end}");
    assert_eq!(ids.first(), Some(&0));
    assert_eq!(ids.last(), Some(&11));
    // From what it saw last.
    let mut rest = Events::open(&holder, &path, Some(6));
    assert_eq!(rest.next().expect("started").data["offset"], 6);
    assert_eq!(rest.next().expect("output").id, Some(11));
    assert_eq!(holder.get(&path.replace("/output", "x/output")).status, 400);
    house.server.stop();
}
