//! `kill -9` at any moment loses no record that was acknowledged, and never looks like tampering.
//!
//! One test plays both parts, as in `crate::kill`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use pinfold_store::audit::{AuditKey, AuditLog, AuditOptions, read, verify};

use super::sample::{Place, event};

const CHILD: &str = "PINFOLD_AUDIT_KILL_CHILD";
const NAME: &str = "audit::kill::kill_9_loses_no_record_that_was_acknowledged";
const ROUNDS: u64 = 16;
const WRITERS: usize = 6;

fn open(home: &Path) -> AuditLog {
    let key = AuditKey::open(&home.join("keys")).expect("a key");
    let options = AuditOptions { rotate_bytes: 48 << 10 };
    AuditLog::open(&home.join("audit"), key, options).expect("the log opens")
}

/// Says `ack SEQ REQUEST.` for each record.
fn write_until_killed(home: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    runtime.expect("a runtime").block_on(async {
        let log = open(home);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let log = log.clone();
                tokio::spawn(async move {
                    for place in 0..100_000 {
                        let mut event = event(place);
                        event.request = format!("{writer}-{place}-{}", std::process::id());
                        let request = event.request.clone();
                        let seq = log.append(event).durable().await.expect("recorded");
                        let line = format!("ack {seq} {request}.\n");
                        std::io::stdout().write_all(line.as_bytes()).expect("the pipe");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("a writer ends");
        }
    });
}

fn start(home: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts")
}

fn hear(line: &str, acknowledged: &mut BTreeMap<u64, String>) -> bool {
    let told = line.strip_prefix("ack ").and_then(|rest| rest.strip_suffix('.'));
    let Some((seq, request)) = told.and_then(|told| told.split_once(' ')) else { return false };
    let seq = seq.parse().expect("a number");
    assert!(acknowledged.insert(seq, request.to_owned()).is_none(), "{seq} was given twice");
    true
}

#[test]
fn kill_9_loses_no_record_that_was_acknowledged() {
    if let Some(home) = std::env::var_os(CHILD) {
        return write_until_killed(Path::new(&home));
    }
    let place = Place::new();
    let mut acknowledged = BTreeMap::new();
    let mut seed: u64 = 0x5eed_a0d1;
    for round in 0..ROUNDS {
        // As in `crate::kill`: the same moments in every run.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let enough = (seed >> 33) % 300;
        let mut child = start(place.home());
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut heard = 0;
        for line in lines.by_ref() {
            heard += u64::from(hear(&line.expect("a line"), &mut acknowledged));
            if heard > enough {
                break;
            }
        }
        assert!(heard > enough, "the child ended by itself in round {round}");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        for line in lines.map_while(Result::ok) {
            hear(&line, &mut acknowledged);
        }
        let found = verify(&place.audit(), &place.key());
        let found = found.unwrap_or_else(|err| panic!("round {round}: {err:?}"));
        let newest = acknowledged.keys().next_back().expect("some");
        assert!(found.last >= *newest, "round {round}: {newest} is not there: {found:?}");
    }
    let mut at = 1;
    let mut kept = BTreeMap::new();
    loop {
        let page = read(&place.audit(), at, 1000).expect("read");
        let Some(last) = page.last() else { break };
        at = last.seq + 1;
        kept.extend(page.into_iter().map(|record| (record.seq, record.event.request)));
    }
    for (seq, request) in &acknowledged {
        assert_eq!(kept.get(seq), Some(request), "record {seq}");
    }
    assert!(acknowledged.len() > 1000, "only {} were acknowledged", acknowledged.len());
}
