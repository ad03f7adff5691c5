//! What a crash may leave is mended, and that is recorded; what was acknowledged is never cut.

use std::{fs, io::Write, path::PathBuf};

use pinfold_store::audit::{AuditOptions, VerifyError, verify};

use super::sample::{Place, event};

/// A copy of a log that was being written, as if its process had died: ten records, not closed.
async fn died() -> Place {
    let place = Place::new();
    let log = place.open();
    for n in 0..9 {
        log.append(event(n)).durable().await.expect("recorded");
    }
    let copy = copy(&place);
    log.close().await;
    copy
}

fn copy(place: &Place) -> Place {
    let copy = Place::new();
    for dir in ["keys", "audit"] {
        fs::create_dir(copy.home().join(dir)).expect("made");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(copy.home().join(dir), mode).expect("private");
        for entry in fs::read_dir(place.home().join(dir)).expect("a list") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name");
            fs::copy(&path, copy.home().join(dir).join(name)).expect("copied");
        }
    }
    copy
}

fn first(place: &Place) -> PathBuf {
    place.audit().join("0000000001.jsonl")
}

fn append(place: &Place, bytes: &[u8]) {
    let mut file = fs::File::options().append(true).open(first(place)).expect("opened");
    file.write_all(bytes).expect("appended");
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_recorded() {
    let line = {
        let place = died().await;
        let text = fs::read(first(&place)).expect("read");
        text[512..].split_inclusive(|byte| *byte == b'\n').next().expect("a record").to_vec()
    };
    let mixed = [&b"{\"seq\":11,\"pr"[..], &[0; 4096], &line].concat();
    let ends: [&[u8]; 5] = [b"{\"seq\":11,\"prev\":\"", &[0; 5000], &mixed, &line, b"\n"];
    for end in ends {
        let place = died().await;
        append(&place, end);
        let found = verify(&place.audit(), &place.key()).expect("a crash is no tampering");
        assert_eq!((found.last, found.unfinished_bytes), (10, end.len() as u64));
        let log = place.open();
        assert_eq!(log.append(event(10)).durable().await.expect("recorded"), 12);
        let mend = log.read(11, 1).expect("read").remove(0).event;
        assert_eq!(mend.operation, "audit.mend");
        assert_eq!(mend.detail["bytes_cut"], end.len().to_string());
        assert_eq!(mend.detail["after_record"], "10");
        log.close().await;
        let found = verify(&place.audit(), &place.key()).expect("sound");
        assert_eq!((found.last, found.unfinished_bytes), (12, 0));
    }
}

#[tokio::test]
async fn whole_records_behind_the_mark_are_kept_and_nothing_is_mended() {
    let place = died().await;
    let log = place.open();
    assert_eq!(log.append(event(10)).durable().await.expect("recorded"), 11);
    log.close().await;
    assert_eq!(verify(&place.audit(), &place.key()).expect("sound").records, 11);
}

#[tokio::test]
async fn what_was_acknowledged_is_missed_also_after_a_crash() {
    let place = died().await;
    let bytes = fs::read(first(&place)).expect("read");
    let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines");
    for cut in [last + 1, last + 40, bytes.len() - 1] {
        fs::write(first(&place), &bytes[..cut]).expect("cut");
        match verify(&place.audit(), &place.key()) {
            Err(VerifyError::Tampered(found)) => assert_eq!(found.seq, 10, "{found}"),
            other => panic!("not found out: {other:?}"),
        }
        assert!(place.try_open().is_err());
    }
}

#[tokio::test]
async fn a_head_that_lags_is_no_tampering() {
    let place = Place::new();
    let log = place.open();
    log.append(event(0)).durable().await.expect("recorded");
    let head = fs::read(place.keys().join("audit.head")).expect("read");
    for n in 1..50 {
        log.append(event(n)).durable().await.expect("recorded");
    }
    log.close().await;
    fs::write(place.keys().join("audit.head"), head).expect("set back");
    assert_eq!(verify(&place.audit(), &place.key()).expect("sound").records, 51);
    let log = place.open();
    assert_eq!(log.append(event(50)).durable().await.expect("recorded"), 52);
    log.close().await;
}

#[tokio::test]
async fn a_pruning_that_was_cut_short_is_finished() {
    let place = Place::new();
    let options = AuditOptions { rotate_bytes: 2048 };
    let log = place.open_with(options);
    for n in 0..30 {
        log.append(event(n)).durable().await.expect("recorded");
    }
    let before = copy(&place);
    log.prune(2).await.expect("pruned");
    log.close().await;
    for name in ["0000000001.jsonl", "0000000009.jsonl"] {
        fs::copy(before.audit().join(name), place.audit().join(name)).expect("put back");
    }
    fs::write(place.audit().join("0000000077.jsonl.new"), "half made").expect("written");
    assert_eq!(verify(&place.audit(), &place.key()).expect("sound").segments, 2);
    let log = place.open_with(options);
    log.close().await;
    assert_eq!(fs::read_dir(place.audit()).expect("a list").count(), 2);
    verify(&place.audit(), &place.key()).expect("sound");
}

#[tokio::test]
async fn a_start_that_was_cut_short_is_begun_again() {
    // The key and nothing else; the head without its key; the directory without a segment.
    let place = Place::new();
    place.key();
    place.open().close().await;
    let place = Place::new();
    place.key();
    fs::remove_file(place.keys().join("audit.key")).expect("removed");
    fs::create_dir(place.audit()).expect("made");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(place.audit(), mode).expect("private");
    let log = place.open();
    assert_eq!(log.append(event(0)).durable().await.expect("recorded"), 2);
    log.close().await;
    verify(&place.audit(), &place.key()).expect("sound");
}
