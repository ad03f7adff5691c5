//! `deny.toml`'s bans and licences, from cargo's metadata, for machines without cargo-deny.

use std::collections::BTreeSet;

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
}

#[derive(Debug, Deserialize)]
struct Package {
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
    let metadata: Metadata = serde_json::from_slice(&repo.output("cargo", &words)?)
        .context("cargo metadata is not what it was")?;
    Ok(judge(&rules, &metadata.packages))
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
    fn banned_unlicensed_and_foreign_crates_are_found() {
        let rules = Rules {
            bans: Bans { deny: vec![Ban { name: "ring".into(), reason: "one provider".into() }] },
            licenses: Licenses { allow: allow() },
        };
        let package = |name: &str, license: Option<&str>, source: &str| Package {
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
