//! Profiles of the real server: off, on, and for nobody but tools on this machine.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use testkit::{Server, ServerOptions};

use crate::{
    aside::{self, refused_start},
    wire::fields,
};

fn profiled() -> Server {
    let config = "[profiling]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    Server::with(ServerOptions { config, ..ServerOptions::default() })
}

fn place(server: &Server) -> String {
    aside::place(server, "profiles")
}

/// Status and body of one request with these header lines.
fn ask(place: &str, head: &str, lines: &[&str]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(place).expect("the listener");
    stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a time limit");
    let lines = lines.join("\r\n");
    let request = format!("{head} HTTP/1.1\r\n{lines}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("a reply");
    let end = reply.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    (status, reply[end + 4..].to_vec())
}

fn get(place: &str, path: &str) -> (u16, Vec<u8>) {
    ask(place, &format!("GET {path}"), &[&format!("Host: {place}")])
}

#[test]
fn nothing_listens_until_somebody_says_so() {
    let server = Server::start();
    assert!(!server.printed().contains("profiles are served"));
    // Of all sockets of the process, none listens for TCP.
    let ours: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .expect("its descriptors")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|to| {
            let inode = to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let (state, inode) = (words[3], words[9]);
            assert!(state != "0A" || !ours.iter().any(|own| own == inode), "{line}");
        }
    }
    server.stop();
}

#[test]
fn a_profile_of_the_server_under_load_names_its_functions() {
    let server = profiled();
    let place = place(&server);
    let done = AtomicBool::new(false);
    let (status, file) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(server.api("GET", "/api/v1/workspaces", None).status, 200);
                }
            });
        }
        let taking = scope.spawn(|| get(&place, "/debug/pprof/profile?seconds=3"));
        let taken = taking.join();
        done.store(true, Ordering::Relaxed);
        taken.expect("the reader")
    });
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&file));
    let mut profile = Vec::new();
    flate2::read::GzDecoder::new(&*file).read_to_end(&mut profile).expect("gzip");
    let all = fields(&profile);
    let of = |number: u64| all.iter().filter(move |field| field.0 == number);
    let texts: Vec<_> = of(6).map(|field| String::from_utf8_lossy(field.2).into_owned()).collect();
    assert_eq!(texts.first().map(String::as_str), Some(""));
    for word in ["cpu", "nanoseconds", "samples", "count"] {
        assert!(texts.iter().any(|text| text == word), "{word}");
    }
    // Each sample: two values, at least one place; each place is in the table.
    let places: Vec<u64> = of(4)
        .filter_map(|field| fields(field.2).iter().find(|inner| inner.0 == 1).map(|id| id.1))
        .collect();
    assert!(of(2).count() >= 5, "{} samples", of(2).count());
    assert!(!places.is_empty());
    let ours = texts.iter().filter(|text| text.contains("pinfold_")).count();
    assert!(ours >= 5, "{ours} names of ours among {texts:?}");
    assert!(texts.iter().any(|text| text.contains("tokio::runtime")), "{texts:?}");
    let (status, look) = get(&place, "/debug/runtime");
    assert_eq!(status, 200);
    let look: serde_json::Value = serde_json::from_slice(&look).expect("JSON");
    assert!(look["workers"].as_array().is_some_and(|workers| !workers.is_empty()), "{look}");
    assert!(look["memory_bytes"]["rss"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{look}");
    server.stop();
}

#[test]
fn one_at_a_time_and_a_reader_who_leaves_frees_the_place() {
    let server = profiled();
    let place = place(&server);
    let mut first = TcpStream::connect(&place).expect("the listener");
    let head = format!("GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: {place}\r\n\r\n");
    first.write_all(head.as_bytes()).expect("sent");
    testkit::until("the first profile to begin", Duration::from_secs(20), || {
        let (status, said) = get(&place, "/debug/pprof/profile?seconds=1");
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(status == 200 || (status == 409 && said.contains("one at a time")), "{said}");
        (status == 409).then_some(())
    });
    drop(first);
    testkit::until("its place to be free", Duration::from_secs(20), || {
        (get(&place, "/debug/pprof/profile?seconds=1").0 == 200).then_some(())
    });
    server.stop();
}

#[test]
fn only_tools_of_this_machine_are_answered() {
    let server = profiled();
    let place = place(&server);
    let host = format!("Host: {place}");
    let path = "GET /debug/pprof/";
    assert_eq!(ask(&place, path, &[&host]).0, 200);
    assert_eq!(ask(&place, path, &["Host: rebound.example:6060"]).0, 403);
    assert_eq!(ask(&place, path, &["Host: localhost", "Host: rebound.example"]).0, 403);
    assert_eq!(ask(&place, path, &[&host, "Origin: http://evil.example"]).0, 403);
    assert_eq!(ask(&place, path, &[&host, "Sec-Fetch-Site: cross-site"]).0, 403);
    assert_eq!(ask(&place, "POST /debug/pprof/profile?seconds=1", &[&host]).0, 405);
    for bad in ["seconds=0", "seconds=61", "seconds=x", "debug=1"] {
        assert_eq!(get(&place, &format!("/debug/pprof/profile?{bad}")).0, 400, "{bad}");
    }
    for absent in ["/metrics", "/api/v1/server", "/debug/pprof/cmdline", "/debug/vars"] {
        assert_eq!(get(&place, absent).0, 404, "{absent}");
    }
    server.stop();
}

#[test]
fn beyond_loopback_it_does_not_start_and_says_what_to_do() {
    for address in ["0.0.0.0:6060", "[::]:6060", "192.0.2.1:6060"] {
        let said = refused_start(&format!("[profiling]\nlisten = \"{address}\"\n"));
        assert!(said.contains("profiling.listen") && said.contains("127.0.0.1:6060"), "{said}");
    }
}
