//! Whoever changes the files is found out: one test for each way that we know.

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use pinfold_store::audit::{AuditKey, AuditOptions, Tampered, VerifyError, verify};

use super::sample::{Place, event};

const HEADER: usize = 512;

/// A closed log: segments that begin with records 1, 5, 9, …, 21, of four records each.
async fn written() -> Place {
    let place = Place::new();
    write(&place, 0).await;
    place
}

async fn write(place: &Place, from: usize) {
    let log = place.open_with(AuditOptions { rotate_bytes: 2048 });
    for n in from..from + 23 {
        log.append(event(n)).durable().await.expect("recorded");
    }
    log.close().await;
    let found = verify(&place.audit(), &place.key()).expect("sound");
    assert_eq!((found.records, found.segments, found.unfinished_bytes), (24, 6, 0));
}

fn segment(place: &Place, first: u64) -> PathBuf {
    let path = place.audit().join(format!("{first:010}.jsonl"));
    assert!(path.exists(), "{} is not there", path.display());
    path
}

/// Header and records of a segment, each with its newline.
fn split(place: &Place, first: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let bytes = fs::read(segment(place, first)).expect("read");
    let records = bytes[HEADER..].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    (bytes[..HEADER].to_vec(), records.collect())
}

/// Rewrites the records of a segment.
fn edit(place: &Place, first: u64, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let (header, mut records) = split(place, first);
    change(&mut records);
    fs::write(segment(place, first), [header, records.concat()].concat()).expect("written");
}

fn finding(place: &Place) -> Tampered {
    let key = AuditKey::read(&place.keys()).expect("the key");
    match verify(&place.audit(), &key) {
        Err(VerifyError::Tampered(found)) => found,
        other => panic!("not found out: {other:?}"),
    }
}

/// The finding names the file, the record and what is wrong.
fn found(place: &Place, file: &str, seq: u64, what: &str) {
    let found = finding(place);
    assert_eq!((found.segment.to_str(), found.seq), (Some(file), seq), "{found}");
    assert!(found.what.contains(what), "{found}");
}

/// An opening looks at headers and the end only; what it sees it does not open.
fn not_opened(place: &Place) {
    let refused = place.try_open().expect_err("tampered with");
    assert!(refused.message.contains("not as it was written"), "{refused}");
    assert!(refused.hint.expect("a hint").contains("evidence"));
}

const SECOND: &str = "audit/0000000005.jsonl";
const LAST: &str = "audit/0000000021.jsonl";

#[tokio::test]
async fn a_changed_record_is_found() {
    let place = written().await;
    edit(&place, 5, |records| {
        let text = String::from_utf8(records[1].clone()).expect("text");
        records[1] = text.replace("\"allow\"", "\"alloW\"").into_bytes();
    });
    found(&place, SECOND, 6, "was changed: its hash");
}

#[tokio::test]
async fn any_changed_byte_is_found() {
    let place = written().await;
    let path = segment(&place, 21);
    let file = fs::File::options().read(true).write(true).open(&path).expect("opened");
    let length = file.metadata().expect("facts").len();
    for at in (0..length).step_by(17) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 4], at).expect("written");
        assert_eq!(finding(&place).segment.to_str(), Some(LAST));
        file.write_all_at(&byte, at).expect("written");
    }
    verify(&place.audit(), &place.key()).expect("sound again");
}

#[tokio::test]
async fn a_removed_record_is_found() {
    let place = written().await;
    edit(&place, 5, |records| drop(records.remove(1)));
    found(&place, SECOND, 6, "it was removed: record 7 follows 5");
}

#[tokio::test]
async fn a_changed_order_is_found() {
    let place = written().await;
    edit(&place, 5, |records| records.swap(1, 2));
    found(&place, SECOND, 6, "the order was changed: record 7");
}

#[tokio::test]
async fn a_doubled_record_is_found() {
    let place = written().await;
    edit(&place, 5, |records| records.insert(2, records[1].clone()));
    found(&place, SECOND, 7, "record 6 stands a second time");
}

#[tokio::test]
async fn what_the_same_key_wrote_elsewhere_is_found() {
    let (place, other) = (Place::new(), Place::new());
    drop(place.key());
    fs::create_dir(other.keys()).expect("made");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(other.keys(), private).expect("private");
    for name in ["audit.key", "audit.head"] {
        fs::copy(place.keys().join(name), other.keys().join(name)).expect("copied");
    }
    write(&place, 0).await;
    write(&other, 100).await;
    let stranger = split(&other, 5).1.remove(1);
    edit(&place, 5, |records| records[1] = stranger);
    found(&place, SECOND, 6, "it is a record of another log");
    fs::copy(segment(&other, 5), segment(&place, 5)).expect("copied");
    found(&place, SECOND, 5, "it continues from another record");
    fs::remove_dir_all(place.audit()).expect("removed");
    fs::rename(other.audit(), place.audit()).expect("renamed");
    found(&place, LAST, 24, "it is not the record that keys/audit.head names");
    not_opened(&place);
}

#[tokio::test]
async fn a_log_cut_at_its_end_is_found() {
    let place = written().await;
    edit(&place, 21, |records| drop(records.pop()));
    found(&place, LAST, 24, "records 24 to 24 were cut off");
    not_opened(&place);
    edit(&place, 21, Vec::clear);
    found(&place, LAST, 21, "records 21 to 24 were cut off");
    fs::write(segment(&place, 21), "").expect("emptied");
    found(&place, LAST, 21, "its first line was changed");
    not_opened(&place);
}

#[tokio::test]
async fn a_piece_of_a_record_is_found() {
    let place = written().await;
    edit(&place, 21, |records| records[3].truncate(100));
    found(&place, LAST, 24, "cut off");
    edit(&place, 21, |records| records[3].push(b'\n'));
    found(&place, LAST, 24, "");
    not_opened(&place);
}

#[tokio::test]
async fn what_is_appended_to_a_closed_log_is_found() {
    for extra in [&b"garbage"[..], b"{\"seq\":25}\n", b"\n", b"\0\0\0\0"] {
        let place = written().await;
        edit(&place, 21, |records| records.push(extra.to_vec()));
        let found = finding(&place);
        assert_eq!((found.segment.to_str(), found.seq), (Some(LAST), 25), "{found}");
        not_opened(&place);
    }
    let place = written().await;
    edit(&place, 21, |records| records.push(records[3].clone()));
    found(&place, LAST, 25, "record 24 stands a second time");
    edit(&place, 5, |records| records.push(b"x".to_vec()));
    found(&place, SECOND, 9, "");
}

#[tokio::test]
async fn a_removed_segment_is_found() {
    let place = written().await;
    fs::remove_file(segment(&place, 5)).expect("removed");
    found(&place, "audit/0000000009.jsonl", 5, "records 5 to 8 are missing before it");
    not_opened(&place);
    let place = written().await;
    fs::remove_file(segment(&place, 1)).expect("removed");
    found(&place, SECOND, 1, "records 1 to 4 are missing before it");
    not_opened(&place);
    let place = written().await;
    fs::remove_file(segment(&place, 21)).expect("removed");
    found(&place, "audit/0000000017.jsonl", 21, "keys/audit.head names 24");
    not_opened(&place);
}

#[tokio::test]
async fn a_removed_directory_is_found() {
    let place = written().await;
    fs::remove_dir_all(place.audit()).expect("removed");
    found(&place, "audit", 1, "the log ends with record 0, and keys/audit.head names 24");
    not_opened(&place);
}

#[tokio::test]
async fn swapped_and_copied_segments_are_found() {
    let place = written().await;
    let (one, two) = (segment(&place, 5), segment(&place, 9));
    let aside = place.home().join("aside");
    fs::rename(&one, &aside).expect("renamed");
    fs::rename(&two, &one).expect("renamed");
    fs::rename(&aside, &two).expect("renamed");
    found(&place, SECOND, 5, "says that it begins with 9");
    not_opened(&place);
    let place = written().await;
    fs::copy(segment(&place, 5), place.audit().join("0000000007.jsonl")).expect("copied");
    found(&place, "audit/0000000007.jsonl", 7, "says that it begins with 5");
    fs::rename(place.audit().join("0000000007.jsonl"), segment(&place, 9)).expect("renamed");
    found(&place, "audit/0000000009.jsonl", 9, "says that it begins with 5");
}

#[tokio::test]
async fn a_log_set_back_to_an_earlier_state_is_found() {
    let place = Place::new();
    let log = place.open();
    for n in 0..5 {
        log.append(event(n)).durable().await.expect("recorded");
    }
    log.close().await;
    let before = fs::read(segment(&place, 1)).expect("read");
    let log = place.open();
    log.append(event(5)).durable().await.expect("recorded");
    log.close().await;
    fs::write(segment(&place, 1), before).expect("set back");
    found(&place, "audit/0000000001.jsonl", 7, "the log ends with record 6");
    not_opened(&place);
}

#[tokio::test]
async fn a_missing_or_foreign_head_is_found() {
    let place = written().await;
    let path = place.keys().join("audit.head");
    let head = fs::read(&path).expect("read");
    fs::write(&path, String::from_utf8(head).expect("text").replace("\"seq\":24", "\"seq\":23"))
        .expect("written");
    found(&place, "keys/audit.head", 0, "not what this key wrote");
    not_opened(&place);
    fs::remove_file(&path).expect("removed");
    found(&place, "keys/audit.head", 0, "missing");
    not_opened(&place);
    let other = written().await;
    fs::copy(other.keys().join("audit.head"), &path).expect("copied");
    found(&place, "keys/audit.head", 0, "not what this key wrote");
}

#[tokio::test]
async fn another_key_vouches_for_nothing_and_a_lost_one_is_missed() {
    let place = written().await;
    let key = place.keys().join("audit.key");
    fs::write(&key, [1; 32]).expect("written");
    found(&place, "keys/audit.head", 0, "not what this key wrote");
    fs::write(&key, [1; 31]).expect("written");
    let refused = place.try_open().expect_err("no key");
    assert!(refused.message.contains("is not 32 bytes long"), "{refused}");
    fs::remove_file(&key).expect("removed");
    let refused = place.try_open().expect_err("no key");
    assert!(refused.message.contains("missing, and a log is there"), "{refused}");
    assert!(!key.exists(), "a new key was made");
}
