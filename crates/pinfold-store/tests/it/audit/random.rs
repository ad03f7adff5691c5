//! Any order of appending, restarting and pruning gives a log that verifies and holds exactly
//! what was acknowledged.

use std::{collections::BTreeMap, fs};

use pinfold_store::audit::{AuditEvent, AuditLog, AuditOptions, Phase, read, verify};
use proptest::prelude::*;

use super::sample::Place;

#[derive(Clone, Debug)]
enum Act {
    /// So many at once.
    Append(Vec<String>),
    /// Close and open again, with this size of a segment.
    Reopen(u64),
    /// The process dies in the midst of a write that leaves these bytes.
    Die(Vec<u8>),
    Prune(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => prop::collection::vec("\\PC{0,300}|[\\x00-\\x7f\u{202e}]{0,2000}", 1..20).prop_map(Act::Append),
        1 => (1024_u64..8192).prop_map(Act::Reopen),
        1 => prop::collection::vec(any::<u8>(), 0..3000).prop_map(Act::Die),
        1 => (1_usize..6).prop_map(Act::Prune),
    ];
    prop::collection::vec(act, 1..12)
}

/// Drops the log as it is, and puts back the files as they were while it was being written.
async fn die(place: &Place, log: AuditLog, extra: &[u8]) {
    let mut kept = BTreeMap::new();
    for dir in [place.audit(), place.keys()] {
        for entry in fs::read_dir(dir).expect("a list") {
            let path = entry.expect("an entry").path();
            kept.insert(path.clone(), fs::read(path).expect("read"));
        }
    }
    log.close().await;
    for (path, bytes) in &kept {
        fs::write(path, bytes).expect("put back");
    }
    let last = kept.keys().rfind(|path| path.starts_with(place.audit())).expect("a segment");
    // Nothing is ever written to a segment that is full and waits for its successor.
    if kept[last][..512].windows(14).any(|part| part == b"\"state\":\"open\"") {
        fs::write(last, [&kept[last][..], extra].concat()).expect("torn");
    }
}

async fn play(acts: Vec<Act>) {
    let place = Place::new();
    let mut options = AuditOptions { rotate_bytes: 2048 };
    let mut log = place.open_with(options);
    let mut acknowledged = BTreeMap::new();
    for act in acts {
        match act {
            Act::Append(texts) => {
                let pending: Vec<_> = texts
                    .into_iter()
                    .map(|text| {
                        let at = jiff::Timestamp::UNIX_EPOCH;
                        let mut event = AuditEvent::new(at, Phase::End, "op");
                        event.object = text;
                        (event.object.clone(), log.append(event))
                    })
                    .collect();
                for (text, pending) in pending {
                    acknowledged.insert(pending.durable().await.expect("recorded"), text);
                }
            }
            Act::Reopen(rotate_bytes) => {
                log.close().await;
                options.rotate_bytes = rotate_bytes;
                log = place.open_with(options);
            }
            Act::Die(extra) => {
                die(&place, log, &extra).await;
                log = place.open_with(options);
            }
            Act::Prune(keep) => drop(log.prune(keep).await.expect("pruned")),
        }
        log.verify().expect("sound at every moment");
    }
    log.close().await;
    let found = verify(&place.audit(), &place.key()).expect("sound");
    let mut kept = BTreeMap::new();
    let mut from = found.first;
    while from <= found.last {
        let page = read(&place.audit(), from, 7).expect("read");
        from = page.last().expect("a record").seq + 1;
        kept.extend(page.into_iter().map(|record| (record.seq, record.event.object)));
    }
    assert_eq!(kept.len() as u64, found.records);
    for (seq, text) in acknowledged.range(found.first..) {
        let found = kept.get(seq).expect("there");
        let cut = found.rsplit_once("…[").is_some_and(|(front, _)| text.starts_with(front));
        assert!(found == text || cut, "record {seq}: {found:?} is not {text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_acts_gives_a_log_that_verifies(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(play(acts));
    }
}
