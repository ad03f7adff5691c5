//! The disk before the word, as in `crate::trace`: `fdatasync` of the segment, finished, between
//! the last write to it and the acknowledgement.

use std::{io::Write, path::Path, process::Command};

use pinfold_store::audit::{AuditKey, AuditLog, AuditOptions};

use super::sample::{Place, event};

const CHILD: &str = "PINFOLD_AUDIT_TRACE_CHILD";
const APPENDS: usize = 20;

fn acknowledge(home: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let key = AuditKey::open(&home.join("keys")).expect("a key");
        let log = AuditLog::open(&home.join("audit"), key, AuditOptions::default()).expect("opens");
        for n in 0..APPENDS {
            log.append(event(n)).durable().await.expect("recorded");
            let line = format!("acknowledged {n}\n");
            std::io::stdout().write_all(line.as_bytes()).expect("the pipe");
        }
    });
}

#[test]
fn the_record_is_on_the_disk_before_the_acknowledgement() {
    if let Some(home) = std::env::var_os(CHILD) {
        return acknowledge(Path::new(&home));
    }
    let place = Place::new();
    let trace = place.home().join("trace");
    let done = Command::new("strace")
        .args(["-f", "-y", "-s", "24", "-e", "trace=write,pwrite64,fdatasync,fsync", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "audit::trace::the_record_is_on_the_disk_before_the_acknowledgement"])
        .arg("--nocapture")
        .env(CHILD, place.home())
        .output()
        .expect("strace runs: apt-get install strace");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let trace = std::fs::read_to_string(trace).expect("a trace");
    let (mut written, mut synced, mut asked, mut acknowledged) = (false, false, false, 0);
    for line in trace.lines() {
        let log = line.contains(".jsonl>");
        let ended = line.trim_end().ends_with("= 0");
        if log && line.contains("pwrite64(") && line.contains("{\\\"seq\\\":") {
            (written, synced) = (true, false);
        } else if log && line.contains("fdatasync(") {
            (synced, asked) = (ended, !ended);
        } else if asked && line.contains("fdatasync resumed") && ended {
            (synced, asked) = (true, false);
        } else if line.contains("\"acknowledged ") {
            assert!(written && synced, "acknowledged before it was on the disk:\n{line}");
            (written, synced) = (false, false);
            acknowledged += 1;
        }
    }
    assert_eq!(acknowledged, APPENDS, "the trace is not whole");
}
