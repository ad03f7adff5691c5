//! `deny.toml`'s bans and licences, from cargo's metadata, for machines without cargo-deny.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
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

/// One crate that the workspace really builds.
#[derive(Debug)]
struct Package {
    /// Name and version.
    place: String,
    name: String,
    /// Where it came from, when that is not the registry.
    source: Option<String>,
    license: String,
}

pub(crate) fn check(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    let rules: Rules = toml::from_str(&repo.text("deny.toml")?).context("deny.toml")?;
    // The tree holds what is built; `cargo metadata` also lists what no feature reaches.
    let words = [
        "tree",
        "--workspace",
        "--locked",
        "--all-features",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p}\t{l}",
    ];
    let tree = String::from_utf8(repo.output("cargo", &words)?).context("cargo tree")?;
    let lines: BTreeSet<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    let packages: Vec<Package> = lines.into_iter().filter_map(parse).collect();
    ensure!(!packages.is_empty(), "cargo tree printed no crate");
    Ok(judge(&rules, &packages))
}

/// `name v1.2.3 (source)`, a tab, the licence. Our own crates show their path as source.
fn parse(line: &str) -> Option<Package> {
    let (what, license) = line.split_once('\t')?;
    let mut words = what.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    let source = words
        .map(|word| word.trim_matches(['(', ')']))
        .find(|word| word.contains("://"))
        .map(str::to_owned);
    Some(Package {
        place: format!("{name} {version}"),
        name: name.to_owned(),
        source,
        license: license.to_owned(),
    })
}

fn judge(rules: &Rules, packages: &[Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in packages {
        let mut wrong = |what: String| problems.push(Problem::new(&package.place, what));
        if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == package.name) {
            wrong(format!("banned: {}", ban.reason));
        }
        if package.license.is_empty() {
            wrong("states no licence".into());
        } else if !allowed(&package.license, &rules.licenses.allow) {
            wrong(format!("licence {} is not allowed", package.license));
        }
        if let Some(source) = &package.source {
            wrong(format!("comes from {source}, not from the registry"));
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
        let found = |line: &str| judge(&rules, &[parse(line).expect(line)]).len();
        assert_eq!(found("a v1.0.0\tMIT"), 0);
        assert_eq!(found("xtask v0.1.0 (/somewhere/xtask)\tApache-2.0 OR MIT"), 0);
        assert_eq!(found("m v1.0.0 (proc-macro)\tMIT/Apache-2.0"), 0);
        assert_eq!(found("ring v0.17.14\tMIT"), 1);
        assert_eq!(found("a v1.0.0\t"), 1);
        assert_eq!(found("a v1.0.0\tGPL-3.0"), 1);
        assert_eq!(found("a v1.0.0 (https://example.com/a#123)\tMIT"), 1);
    }
}
