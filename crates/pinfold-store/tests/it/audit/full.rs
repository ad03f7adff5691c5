//! A disk that is full: refused with the mend, without a gap, and mended by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use pinfold_store::audit::{AuditEvent, AuditLog, AuditOptions, Phase, verify};
use pinfold_types::ErrorCode;

use super::sample::{Place, event};

/// A small filesystem in memory, unmounted at the end.
struct Small {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("small");
        fs::create_dir(&at).expect("made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs"]).arg(&at);
        assert!(mount.status().expect("mount runs").success());
        Self { at, _dir: dir }
    }

    /// Takes all space there is.
    fn fill(&self) -> PathBuf {
        let path = self.at.join("filler");
        let full = fs::write(&path, vec![1; 1 << 20]).expect_err("it is smaller than that");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn big(n: usize) -> AuditEvent {
    let mut event = AuditEvent::new(jiff::Timestamp::UNIX_EPOCH, Phase::Begin, "big");
    event.object = "x".repeat(1000);
    event.rule = "y".repeat(500);
    event.with("n", n.to_string())
}

async fn healthy_again(log: &AuditLog) {
    let began = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(20));
    while log.healthy().is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "it did not recover");
        again.tick().await;
    }
}

async fn run_full(place: &Place, small: &Small, options: AuditOptions) {
    let log = place.open_with(options);
    let mut recorded = vec![log.append(event(0)).durable().await.expect("recorded")];
    for round in 0..3 {
        let filler = small.fill();
        let mut refused = 0;
        // What is left of the last page takes a record or two.
        while refused < 5 {
            match log.append(big(refused)).durable().await {
                Ok(seq) => recorded.push(seq),
                Err(err) => {
                    assert_eq!(err.code, ErrorCode::Unavailable);
                    assert!(err.message.contains("No space left"), "{err}");
                    assert!(err.hint.as_deref().expect("a hint").contains("free space"));
                    assert_eq!(log.healthy().expect_err("not healthy").code, err.code);
                    refused += 1;
                }
            }
        }
        fs::remove_file(&filler).expect("removed");
        healthy_again(&log).await;
        recorded.push(log.append(event(round)).durable().await.expect("recorded"));
        let said = log.tail(2).expect("read").remove(0);
        assert_eq!(said.event.operation, "audit.refused");
        assert_eq!(said.event.phase, Phase::Security);
        assert_eq!(said.event.detail["records"], refused.to_string());
    }
    let found = log.verify().expect("sound");
    // One record says that the log begins, three that some were refused; nothing else is there.
    assert_eq!(found.last, recorded.len() as u64 + 4);
    log.close().await;
    assert_eq!(verify(&place.audit(), &place.key()).expect("sound").last, found.last);
}

fn at(small: &Small) -> &Path {
    &small.at
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_without_a_gap() {
    let small = Small::new();
    let place = Place::inside(at(&small));
    run_full(&place, &small, AuditOptions::default()).await;
}

#[tokio::test]
async fn a_disk_that_is_full_at_a_rotation_leaves_no_gap_either() {
    let small = Small::new();
    let place = Place::inside(at(&small));
    run_full(&place, &small, AuditOptions { rotate_bytes: 1024 }).await;
}
