//! Dependencies that have newer releases, and published weaknesses of those we have (GX-11).

use crate::repo::{Problem, Repo};

/// A copy of the advisory database (`RustSec`) beside the checkout, where somebody put one.
const ADVISORIES: &str = "advisory-db";

/// Newer releases are told, not refused: an update is somebody's decision. A published weakness
/// is refused.
pub(crate) fn check(repo: &Repo, offline: bool) -> anyhow::Result<Vec<Problem>> {
    let mut words = vec!["update", "--dry-run", "--verbose"];
    if offline {
        words.push("--offline");
    }
    let output = repo.command("cargo").args(&words).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        println!("outdated: not checked: {}", text.lines().next().unwrap_or("cargo update failed"));
    }
    for line in newer(&text) {
        println!("outdated: {line}");
    }
    if !repo.path(ADVISORIES).is_dir() {
        println!(
            "outdated: advisories not checked: no copy of the RustSec database in {ADVISORIES}/"
        );
        return Ok(Vec::new());
    }
    let audit = repo
        .command("cargo")
        .args(["audit", "--no-fetch", "--db", ADVISORIES, "--deny", "warnings"])
        .output()?;
    if audit.status.success() {
        return Ok(Vec::new());
    }
    let text = [audit.stdout, audit.stderr].concat();
    Ok(vec![Problem::new("Cargo.lock", String::from_utf8_lossy(&text).trim().to_owned())])
}

/// What cargo would change, and what it may not because a manifest says otherwise.
fn newer(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| {
            line.starts_with("Updating ") && line.contains(" -> ") || line.contains("(available: ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_told_from_talk() {
        let text = "    Updating an index\n    Updating a v1.0.0 -> v1.0.1\n   Unchanged b v1.0.0 (available: v2.0.0)\n     Locking 2 packages\n";
        assert_eq!(
            newer(text),
            ["Updating a v1.0.0 -> v1.0.1", "Unchanged b v1.0.0 (available: v2.0.0)"]
        );
    }
}
