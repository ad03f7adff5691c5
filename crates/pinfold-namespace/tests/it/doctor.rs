//! The probe behind `pinfold doctor`, on a machine where all walls stand.

use pinfold_namespace::probe;
use pinfold_types::api::Verdict;

use crate::harness::launcher_options;

#[tokio::test]
async fn every_wall_is_tried_and_stands_here() {
    let home = tempfile::tempdir().unwrap();
    let findings = probe(&launcher_options().binary, home.path()).await;
    for check in [
        "namespaces",
        "idmapped mounts",
        "landlock",
        "seccomp",
        "mounting",
        "network namespace",
        "overlay root",
        "capabilities",
        "device nodes",
        "memory_bytes",
        "pids",
    ] {
        assert!(findings.iter().any(|found| found.check == check), "{check} was not tried");
    }
    for found in findings.iter().filter(|found| found.area == "isolation") {
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "the probe left something");
}

#[tokio::test]
async fn a_missing_launcher_is_a_finding_with_a_mend() {
    let home = tempfile::tempdir().unwrap();
    let findings = probe(std::path::Path::new("/nonexistent/launcher"), home.path()).await;
    let missing = findings.iter().find(|found| found.verdict == Verdict::Missing).expect("one");
    assert!(missing.detail.contains("/nonexistent/launcher") && missing.mend.is_some());
}
