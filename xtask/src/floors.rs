//! The rooms and their floors (ARCHITECTURE.md), checked from cargo's metadata: a room uses the
//! floors below it and nothing beside or above, except where a line here says so.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

use crate::repo::{Problem, Repo};

/// Every room of `crates/` with its floor.
const FLOORS: &[(&str, u8)] = &[
    ("pinfold", 4),
    ("pinfold-api", 3),
    ("pinfold-mcp", 3),
    ("pinfold-control", 2),
    ("pinfold-node", 2),
    ("pinfold-guest", 2),
    ("pinfold-namespace", 1),
    ("pinfold-disk", 1),
    ("pinfold-image", 1),
    ("pinfold-egress", 1),
    ("pinfold-store", 1),
    ("pinfold-backup", 1),
    ("pinfold-telemetry", 1),
    ("pinfold-types", 0),
    ("pinfold-auth", 0),
    ("pinfold-policy", 0),
    ("pinfold-proto", 0),
    ("pinfold-sys", 0),
    // A program of its own, carried into workspaces; its catalogue is what `doctor` prints.
    ("pinfold-attack", 0),
];

/// Uses of a room on the same floor, each with its reason.
const BESIDE: &[(&str, &str, &str)] = &[
    ("pinfold-auth", "pinfold-types", "grants speak of ids"),
    ("pinfold-policy", "pinfold-types", "rules speak of names"),
    ("pinfold-proto", "pinfold-types", "messages carry the same words as the API"),
    ("pinfold-control", "pinfold-node", "the local machine is a node in the same process"),
    ("pinfold-image", "pinfold-egress", "a pull goes out through the one guarded client"),
    ("pinfold-telemetry", "pinfold-egress", "spans go out through the one guarded client"),
];

/// Rooms that use nothing of ours but what stands here.
const ONLY: &[(&str, &[&str])] = &[
    ("pinfold-types", &[]),
    ("pinfold-sys", &[]),
    ("pinfold-attack", &[]),
    ("pinfold-guest", &["pinfold-proto", "pinfold-types", "pinfold-sys"]),
    ("pinfold-api", &["pinfold-types", "pinfold-auth", "pinfold-control", "pinfold-proto"]),
    ("pinfold-egress", &["pinfold-types", "pinfold-policy"]),
    ("pinfold-store", &["pinfold-types"]),
    ("pinfold-telemetry", &["pinfold-types", "pinfold-sys", "pinfold-egress"]),
];

/// Rooms that no room may use, only tests and tools.
const FOR_US: &[&str] = &["testkit", "xtask", "pinfold-bench", "system-tests"];

/// Crates from outside that belong to one room. Tests may use them.
const OWNED: &[(&str, &[&str])] = &[
    ("axum", &["pinfold-api"]),
    ("rmcp", &["pinfold-mcp"]),
    ("reqwest", &["pinfold-egress"]),
    ("hickory-resolver", &["pinfold-egress"]),
    ("sqlx", &["pinfold-store"]),
    ("landlock", &["pinfold-namespace"]),
    ("backtrace", &["pinfold-sys"]),
    ("prost", &["pinfold-telemetry"]),
    ("seccompiler", &["pinfold-namespace"]),
    ("clap", &["pinfold"]),
    ("anyhow", &["pinfold"]),
];

/// Rooms without I/O, and the crates that would give them some.
const PURE: &[&str] = &["pinfold-types", "pinfold-auth", "pinfold-policy", "pinfold-proto"];
const IO: &[&str] = &["tokio", "rustix", "libc", "hyper", "reqwest", "sqlx", "tempfile"];

/// A feature that takes walls down for the escape tests: no room may ask for it.
const TESTS_ONLY_FEATURE: &str = "weaken";

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    #[serde(default)]
    features: Vec<String>,
}

pub(crate) fn check(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    let words = ["metadata", "--format-version", "1", "--no-deps"];
    let metadata = repo.output("cargo", &words)?;
    let metadata: Metadata =
        serde_json::from_slice(&metadata).context("cargo metadata is not what it was")?;
    let mut problems = judge(&metadata.packages);
    for path in repo.files()? {
        if path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/") {
            problems.extend(judge_manifest(&path, &repo.text(&path)?));
        }
    }
    Ok(problems)
}

fn judge(packages: &[Package]) -> Vec<Problem> {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut problems = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let floor = floors.get(name).copied();
        if floor.is_none() && !FOR_US.contains(&name) {
            problems.push(Problem::new(name, "this room has no floor in xtask's table"));
            continue;
        }
        for used in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
            if let Some(floor) = floor {
                problems.extend(judge_use(name, floor, used, &floors));
            }
        }
    }
    problems
}

fn judge_use(
    name: &str,
    floor: u8,
    used: &Dependency,
    floors: &BTreeMap<&str, u8>,
) -> Option<Problem> {
    let target = used.name.as_str();
    let wrong = |what: String| Some(Problem::new(name, what));
    if FOR_US.contains(&target) {
        return wrong(format!("uses {target}, which is for tests and tools"));
    }
    if used.features.iter().any(|feature| feature == TESTS_ONLY_FEATURE) {
        return wrong(format!("asks {target} for the feature {TESTS_ONLY_FEATURE}"));
    }
    if let Some(below) = floors.get(target) {
        if let Some((_, only)) = ONLY.iter().find(|(room, _)| *room == name)
            && !only.contains(&target)
        {
            return wrong(format!("may use only {only:?} of our rooms, and uses {target}"));
        }
        let beside = BESIDE.iter().any(|(from, to, _)| *from == name && *to == target);
        return (*below >= floor && !beside)
            .then(|| Problem::new(name, format!("floor {floor} uses {target} on floor {below}")));
    }
    if let Some((_, owners)) = OWNED.iter().find(|(owned, _)| *owned == target)
        && !owners.contains(&name)
    {
        return wrong(format!("uses {target}, which belongs to {owners:?}"));
    }
    if PURE.contains(&name) && IO.contains(&target) {
        return wrong(format!("is pure and uses {target}"));
    }
    None
}

/// Versions stand once, in the workspace's own manifest.
fn judge_manifest(path: &str, text: &str) -> Vec<Problem> {
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(err) => return vec![Problem::new(path, format!("not TOML: {err}"))],
    };
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|table| manifest.get(*table)?.as_table())
        .flatten()
        .filter(|(_, value)| {
            let inherited = value.get("workspace").and_then(toml::Value::as_bool);
            inherited != Some(true)
        })
        .map(|(name, _)| {
            Problem::new(path, format!("{name} does not come from [workspace.dependencies]"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[&str]) -> Package {
        let dependencies = uses
            .iter()
            .map(|name| Dependency { name: (*name).into(), kind: None, features: Vec::new() })
            .collect();
        Package { name: name.into(), dependencies }
    }

    #[test]
    fn a_room_may_use_what_lies_below() {
        assert!(
            judge(&[
                package("pinfold-node", &["pinfold-namespace", "pinfold-types", "tokio"]),
                package("pinfold-auth", &["pinfold-types"]),
                package("pinfold-guest", &["pinfold-proto", "pinfold-sys"]),
                package("pinfold-bench", &["pinfold-types", "axum"]),
            ])
            .is_empty()
        );
    }

    #[test]
    fn every_other_use_is_found() {
        for (room, used) in [
            ("pinfold-namespace", "pinfold-node"),
            ("pinfold-namespace", "pinfold-disk"),
            ("pinfold-node", "pinfold-control"),
            ("pinfold-guest", "pinfold-namespace"),
            ("pinfold-api", "pinfold-node"),
            ("pinfold-node", "axum"),
            ("pinfold-image", "reqwest"),
            ("pinfold-node", "sqlx"),
            ("pinfold-proto", "tokio"),
            ("pinfold-node", "testkit"),
            ("pinfold-new", "pinfold-types"),
        ] {
            assert_eq!(judge(&[package(room, &[used])]).len(), 1, "{room} uses {used}");
        }
    }

    #[test]
    fn walls_come_down_only_in_tests() {
        let mut room = package("pinfold", &["pinfold-namespace"]);
        room.dependencies[0].features = vec!["weaken".into()];
        assert_eq!(judge(std::slice::from_ref(&room)).len(), 1);
        room.dependencies[0].kind = Some("dev".into());
        assert!(judge(&[room]).is_empty());
    }

    #[test]
    fn versions_stand_once() {
        let good = "[dependencies]\na.workspace = true\nb = { workspace = true, features = [] }\n";
        assert!(judge_manifest("a/Cargo.toml", good).is_empty());
        assert_eq!(judge_manifest("a/Cargo.toml", "[dependencies]\na = \"1\"\n").len(), 1);
        assert_eq!(
            judge_manifest("a/Cargo.toml", "[dev-dependencies]\na = { path = \"b\" }\n").len(),
            1
        );
    }
}
