//! The whole server as an ordinary user with sub-ids: walls, limits, life of a workspace, images,
//! recovery. Each test has a user of its own and runs the real programs as that user.

mod images;
mod life;
mod walls;

use testkit::User;

/// A user whose machine lets it have workspaces. Where the kernel denies unprivileged user
/// namespaces there is none: then the doctor must say which wall cannot stand and the mend, and
/// making a workspace must fail with the reason.
fn usable() -> Option<User> {
    assert!(testkit::is_root(), "these tests make a user of their own: run them as root");
    let user = User::new();
    let output = user.pinfold(&["doctor", "--json"]);
    let report: serde_json::Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"));
    assert_eq!(report["mode"], "user");
    let findings = report["findings"].as_array().expect("findings");
    let missing: Vec<_> = findings
        .iter()
        .filter(|finding| finding["area"] == "isolation" && finding["verdict"] == "missing")
        .collect();
    if missing.is_empty() {
        return Some(user);
    }
    for finding in &missing {
        assert!(finding["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{finding}");
    }
    let refused = user.pinfold(&["run", "--", "true"]);
    assert_ne!(refused.code, 0, "a wall is missing and the workspace was made: {missing:?}");
    None
}
