//! What is appended comes back, in order, verified, also after a restart.

use std::{fmt::Write, os::unix::fs::PermissionsExt};

use hmac::{Hmac, KeyInit, Mac};

use pinfold_store::audit::{AuditOptions, MAX_RECORDS_PAGE, Phase, read, tail, verify};

use super::sample::{Place, event};

#[tokio::test]
async fn what_was_appended_is_read_again_in_order() {
    let place = Place::new();
    let log = place.open();
    log.healthy().expect("healthy");
    let pending: Vec<_> = (0..100).map(|n| log.append(event(n))).collect();
    let mut seqs = Vec::new();
    for pending in pending {
        seqs.push(pending.durable().await.expect("recorded"));
    }
    // The first record says that the log begins.
    assert_eq!(seqs, (2..=101).collect::<Vec<u64>>());
    assert_eq!(log.last(), 101);
    let records = log.read(1, 1000).expect("read");
    assert_eq!(records.len(), 101);
    assert_eq!(records[0].event.operation, "audit.begin");
    assert_eq!(records[0].event.phase, Phase::Security);
    for (n, pair) in records.windows(2).enumerate() {
        assert_eq!(pair[1].prev, pair[0].hash);
        assert_eq!(pair[1].event, event(n));
    }
    assert_eq!(log.tail(3).expect("read"), records[98..]);
    let found = log.verify().expect("sound");
    assert_eq!((found.records, found.segments, found.first, found.last), (101, 1, 1, 101));
    assert_eq!(found.head_hash, records[100].hash);
    log.close().await;
    let refused = log.append(event(0)).durable().await.expect_err("closed");
    assert!(refused.message.contains("closed"), "{refused}");
    assert!(log.healthy().is_err());

    let log = place.open();
    assert_eq!(log.append(event(7)).durable().await.expect("recorded"), 102);
    log.close().await;
    assert_eq!(verify(&place.audit(), &place.key()).expect("sound").records, 102);
}

#[tokio::test]
async fn segments_follow_each_other_and_old_ones_can_be_removed() {
    let place = Place::new();
    let options = AuditOptions { rotate_bytes: 4096 };
    let log = place.open_with(options);
    for n in 0..100 {
        log.append(event(n)).durable().await.expect("recorded");
    }
    let before = log.verify().expect("sound");
    assert!(before.segments > 5, "{before:?}");
    assert_eq!(before.records, 101);
    for from in [1, 2, 50, 99, 101] {
        let page = log.read(from, 7).expect("read");
        assert_eq!(page[0].seq, from);
        assert_eq!(page.len(), usize::try_from(7.min(102 - from)).expect("small"));
    }
    assert!(log.read(102, 7).expect("read").is_empty());
    assert!(log.read(1, 0).expect("read").is_empty());
    let mut raw = Vec::new();
    assert_eq!(log.export(40..=60, &mut raw).expect("exported"), 21);
    assert!(raw.starts_with(b"{\"seq\":40,") && raw.ends_with(b"\"}\n"));

    assert!(log.prune(0).await.is_err());
    let removed = log.prune(3).await.expect("pruned");
    assert_eq!(removed, before.segments - 3);
    assert_eq!(log.prune(3).await.expect("nothing to do"), 0);
    let after = log.verify().expect("sound");
    assert_eq!((after.segments, after.last), (3, 102));
    assert_eq!(after.records, 103 - after.first);
    let said = log.tail(1).expect("read").remove(0);
    assert_eq!(said.event.operation, "audit.prune");
    assert_eq!(said.event.detail["first_kept"], after.first.to_string());
    assert_eq!(log.read(1, 1).expect("read")[0].seq, after.first);
    log.close().await;
    let log = place.open_with(options);
    assert_eq!(log.append(event(7)).durable().await.expect("recorded"), 103);
    log.close().await;
    assert_eq!(verify(&place.audit(), &place.key()).expect("sound").first, after.first);
    assert_eq!(read(&place.audit(), 103, MAX_RECORDS_PAGE).expect("read")[0].event, event(7));
    assert_eq!(tail(&place.audit(), 1).expect("read")[0].seq, 103);
}

#[tokio::test]
async fn everything_is_private_from_the_first_byte() {
    let place = Place::new();
    let log = place.open_with(AuditOptions { rotate_bytes: 1024 });
    for n in 0..10 {
        log.append(event(n)).durable().await.expect("recorded");
    }
    log.close().await;
    let mut files = 0;
    for dir in [place.audit(), place.keys()] {
        let mode = |path: &std::path::Path| {
            std::fs::symlink_metadata(path).expect("facts").permissions().mode() & 0o7777
        };
        assert_eq!(mode(&dir), 0o700);
        for entry in std::fs::read_dir(&dir).expect("a list") {
            assert_eq!(mode(&entry.expect("an entry").path()), 0o600);
            files += 1;
        }
    }
    assert!(files > 4, "{files}");
    std::fs::set_permissions(place.audit(), std::fs::Permissions::from_mode(0o750)).expect("mode");
    let refused = place.try_open().expect_err("others can reach it");
    assert!(refused.message.contains("0750"), "{refused}");
}

#[tokio::test]
async fn one_writer_at_a_time() {
    let place = Place::new();
    let log = place.open();
    let refused = place.try_open().expect_err("another has it");
    assert!(refused.message.contains("another process writes"), "{refused}");
    log.close().await;
    place.open().close().await;
}

#[tokio::test]
async fn subscribers_hear_what_is_on_the_disk() {
    let place = Place::new();
    let log = place.open();
    let mut heard = log.subscribe();
    let seq = log.append(event(5)).durable().await.expect("recorded");
    let record = loop {
        let record = heard.recv().await.expect("a record");
        if record.seq == seq {
            break record;
        }
    };
    assert_eq!(*record, log.read(seq, 1).expect("read")[0]);
    log.close().await;
}

/// The recipe of `docs/security/audit.md`, with other tools.
#[tokio::test]
async fn a_hash_can_be_checked_by_hand() {
    let place = Place::new();
    let log = place.open();
    log.append(event(0)).durable().await.expect("recorded");
    log.close().await;
    let key = std::fs::read(place.keys().join("audit.key")).expect("a key");
    let text = std::fs::read_to_string(place.audit().join("0000000001.jsonl")).expect("text");
    let line = text.lines().find(|line| line.starts_with("{\"seq\":2,")).expect("record 2");
    let (front, back) = line.rsplit_once(",\"hash\":\"").expect("a hash");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).expect("a key of any length");
    mac.update(format!("{front}}}").as_bytes());
    let hash = mac.finalize().into_bytes().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    });
    assert_eq!(back, format!("{hash}\"}}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_verified_and_read_while_it_is_written() {
    let place = Place::new();
    let log = place.open_with(AuditOptions { rotate_bytes: 16 << 10 });
    log.append(event(0)).durable().await.expect("recorded");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (log, stop) = (log.clone(), std::sync::Arc::clone(&stop));
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    log.append(event(n)).durable().await.expect("recorded");
                    n += 1;
                }
            })
        })
        .collect();
    let (audit, key, reader) = (place.audit(), place.key(), log.clone());
    let segments = tokio::task::spawn_blocking(move || {
        let mut segments = 0;
        while segments < 30 {
            let before = reader.last();
            let found = verify(&audit, &key).expect("nobody tampers");
            assert!(found.last >= before, "{found:?}, and {before} was on the disk");
            segments = found.segments;
            let last = reader.last();
            let found = reader.tail(5).expect("read");
            assert!(found.last().expect("some").seq >= last);
            assert!(tail(&audit, 5).expect("read").last().expect("some").seq >= last);
        }
        segments
    });
    assert!(segments.await.expect("no panic") >= 30);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("no panic");
    }
    log.prune(2).await.expect("pruned");
    assert_eq!(log.verify().expect("sound").segments, 2);
    log.close().await;
}
