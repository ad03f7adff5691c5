//! The disk before the word: a trace of the system calls shows `fdatasync` of the log, finished,
//! between the last write to the log and the acknowledgement.
//!
//! One test plays both parts, as in `kill.rs`.

use std::{io::Write, process::Command};

use crate::sample::{Home, workspace};

const CHILD: &str = "PINFOLD_STORE_TRACE_CHILD";
const INSERTS: usize = 20;

fn acknowledge(path: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let store = pinfold_store::Store::open(path).await.expect("the store opens");
        for place in 0..INSERTS {
            store.insert_workspace(&workspace(&format!("w{place}"))).await.expect("stored");
            let line = format!("acknowledged {place}\n");
            std::io::stdout().write_all(line.as_bytes()).expect("the pipe");
        }
    });
}

#[test]
fn the_log_is_on_the_disk_before_the_acknowledgement() {
    if let Ok(path) = std::env::var(CHILD) {
        return acknowledge(&path);
    }
    let home = Home::new();
    let trace = home.db().with_file_name("trace");
    let done = Command::new("strace")
        .args(["-f", "-y", "-s", "24", "-e", "trace=write,pwrite64,fdatasync,fsync", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "trace::the_log_is_on_the_disk_before_the_acknowledgement"])
        .arg("--nocapture")
        .env(CHILD, home.db())
        .output()
        .expect("strace runs: apt-get install strace");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let trace = std::fs::read_to_string(trace).expect("a trace");
    let (mut written, mut synced, mut acknowledged) = (false, false, 0);
    for line in trace.lines() {
        let log = line.contains("state.db-wal>");
        if log && line.contains("pwrite64(") {
            (written, synced) = (true, false);
        } else if log && line.contains("fdatasync(") && line.trim_end().ends_with("= 0") {
            synced = true;
        } else if line.contains("fdatasync resumed") && line.trim_end().ends_with("= 0") {
            // The only other file that is synchronised is the main one, in a checkpoint, and so
            // few inserts cause none.
            synced = true;
        } else if line.contains("\"acknowledged ") {
            assert!(written && synced, "acknowledged before it was on the disk:\n{line}");
            (written, synced) = (false, false);
            acknowledged += 1;
        }
    }
    assert_eq!(acknowledged, INSERTS, "the trace is not whole");
}
