//! `deny.toml`'s bans and licences, from cargo's metadata, for machines without cargo-deny.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde::Deserialize;

use crate::repo::{Problem, Repo};

#[derive(Debug, Deserialize)]
struct Rules {
    bans: Bans,
    licenses: Licenses,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    #[serde(default)]
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

pub(crate) fn check(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    let rules: Rules = toml::from_str(&repo.text("deny.toml")?).context("deny.toml")?;
    let words = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--all-features",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ];
    let mut metadata: Metadata = serde_json::from_slice(&repo.output("cargo", &words)?)
        .context("cargo metadata is not what it was")?;
    // The list also holds crates that the lock file knows and no feature reaches.
    let reached = reached(&metadata.workspace_members, &metadata.resolve.nodes);
    metadata.packages.retain(|package| reached.contains(&package.id));
    Ok(judge(&rules, &metadata.packages))
}

fn reached(members: &[String], nodes: &[Node]) -> BTreeSet<String> {
    let edges: BTreeMap<&str, &[String]> =
        nodes.iter().map(|node| (node.id.as_str(), node.dependencies.as_slice())).collect();
    let mut open: Vec<&str> = members.iter().map(String::as_str).collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if reached.insert(id.to_owned()) {
            open.extend(edges.get(id).copied().unwrap_or_default().iter().map(String::as_str));
        }
    }
    reached
}

fn judge(rules: &Rules, packages: &[Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in packages {
        let place = format!("{} {}", package.name, package.version);
        if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == package.name) {
            problems.push(Problem::new(&place, format!("banned: {}", ban.reason)));
        }
        match package.license.as_deref() {
            None => problems.push(Problem::new(&place, "states no licence")),
            Some(text) if !allowed(text, &rules.licenses.allow) => {
                problems.push(Problem::new(&place, format!("licence {text} is not allowed")));
            }
            Some(_) => {}
        }
        let registry =
            |source: &String| source.starts_with("registry+") || source.starts_with("sparse+");
        if package.source.as_ref().is_some_and(|source| !registry(source)) {
            problems.push(Problem::new(&place, "does not come from the registry"));
        }
    }
    problems
}

/// An SPDX expression: `OR` needs one side, `AND` both, `WITH` names an exception; a slash is an
/// old spelling of `OR`. Malformed text is not allowed.
fn allowed(text: &str, allow: &BTreeSet<String>) -> bool {
    let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let verdict = any(&words, &mut at, allow);
    verdict.unwrap_or(false) && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allow: &BTreeSet<String>) -> Option<bool> {
    let mut verdict = all(words, at, allow)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= all(words, at, allow)?;
    }
    Some(verdict)
}

fn all(words: &[&str], at: &mut usize, allow: &BTreeSet<String>) -> Option<bool> {
    let mut verdict = term(words, at, allow)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= term(words, at, allow)?;
    }
    Some(verdict)
}

fn term(words: &[&str], at: &mut usize, allow: &BTreeSet<String>) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let verdict = any(words, at, allow)?;
        (words.get(*at) == Some(&")")).then_some(())?;
        *at += 1;
        return Some(verdict);
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1)?;
        *at += 2;
        return Some(allow.contains(&format!("{word} WITH {exception}")));
    }
    Some(allow.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow() -> BTreeSet<String> {
        ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into()
    }

    #[test]
    fn licence_expressions_are_read_as_spdx() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(allowed(good, &allow()), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "MIT OR", "(MIT", "MIT MIT", "GPL-3.0 WITH x"]
        {
            assert!(!allowed(bad, &allow()), "{bad}");
        }
    }

    #[test]
    fn only_what_is_reached_counts() {
        let node = |id: &str, dependencies: &[&str]| Node {
            id: id.into(),
            dependencies: dependencies.iter().map(|d| (*d).to_owned()).collect(),
        };
        let nodes = [node("a", &["b"]), node("b", &["a"]), node("c", &[])];
        assert_eq!(reached(&["a".into()], &nodes), ["a", "b"].map(str::to_owned).into());
    }

    #[test]
    fn banned_unlicensed_and_foreign_crates_are_found() {
        let rules = Rules {
            bans: Bans { deny: vec![Ban { name: "ring".into(), reason: "one provider".into() }] },
            licenses: Licenses { allow: allow() },
        };
        let package = |name: &str, license: Option<&str>, source: &str| Package {
            id: name.into(),
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            source: Some(source.into()),
        };
        let registry = "registry+https://example.com/index";
        assert!(judge(&rules, &[package("a", Some("MIT"), registry)]).is_empty());
        assert_eq!(judge(&rules, &[package("ring", Some("MIT"), registry)]).len(), 1);
        assert_eq!(judge(&rules, &[package("a", None, registry)]).len(), 1);
        assert_eq!(judge(&rules, &[package("a", Some("MIT"), "git+https://example.com")]).len(), 1);
    }
}
