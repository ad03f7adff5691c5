//! Words that belong in one room, or nowhere.

use crate::{
    repo::{Problem, Repo, has_ending},
    source::{has_word, split},
};

/// This file names what it bans.
const SELF: &str = "xtask/src/bans.rs";

/// What a word is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// Code, tests included.
    Code,
    /// Code before the file's `#[cfg(test)]`, outside test folders.
    Product,
    /// Code and comments.
    All,
}

/// A word, where it is looked for, the paths that may hold it, and why no other may.
struct Ban {
    words: &'static [&'static str],
    within: Where,
    homes: &'static [&'static str],
    why: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        words: &["todo!", "unimplemented!"],
        within: Where::Code,
        homes: &[],
        why: "unfinished code is not committed",
    },
    Ban {
        words: &["TODO", "FIXME", "XXX"],
        within: Where::All,
        homes: &[],
        why: "unfinished work is an issue, not a comment",
    },
    Ban {
        words: &["#[ignore"],
        within: Where::Code,
        homes: &[],
        why: "a test that does not run proves nothing",
    },
    Ban {
        words: &["#[allow(", "#![allow("],
        within: Where::Code,
        homes: &[],
        why: "use #[expect(…, reason = …)], which says when it is no longer needed",
    },
    Ban {
        words: &["process::Command"],
        within: Where::Product,
        homes: &[
            "xtask/",
            "bench/",
            "testkit/",
            "crates/pinfold/",           // starts the server on demand
            "crates/pinfold-namespace/", // starts the launcher
            "crates/pinfold-disk/",      // mkfs.btrfs
            "crates/pinfold-image/",     // mmdebstrap
        ],
        why: "processes start only where the room's role is to start them",
    },
    Ban {
        words: &["TcpStream::connect", "TcpSocket", "UdpSocket"],
        within: Where::Product,
        homes: &[
            "crates/pinfold-egress/",
            "crates/pinfold-guest/",
            "crates/pinfold-attack/",
            "bench/",
            "testkit/",
        ],
        why: "one way out: pinfold-egress (the guest dials its own loopback)",
    },
    Ban {
        words: &["TcpListener"],
        within: Where::Product,
        homes: &[
            "bench/",
            "testkit/",
            "crates/pinfold/",
            "crates/pinfold-guest/",
            "crates/pinfold-attack/",
            "crates/pinfold-api/src/listen/", // the control plane's own addresses
            "crates/pinfold-api/src/metrics/listen.rs", // numbers, for loopback or named ranges
            "crates/pinfold-api/src/profiling.rs", // profiles, for loopback alone
            "crates/pinfold-api/src/aside.rs", // the loop of both
        ],
        why: "the server listens in one place; ports are forwarded by the command line",
    },
    Ban {
        words: &["sqlx", "rusqlite"],
        within: Where::Code,
        homes: &["crates/pinfold-store/"],
        why: "only the store writes SQL",
    },
    Ban {
        words: &["axum"],
        within: Where::Code,
        // The bench serves the same node without the API, to see what that costs.
        homes: &["crates/pinfold-api/", "bench/"],
        why: "only the API knows axum",
    },
    Ban {
        words: &["reqwest", "hickory_resolver"],
        within: Where::Code,
        homes: &["crates/pinfold-egress/"],
        why: "one way out: pinfold-egress",
    },
    Ban {
        words: &["thread::sleep", "time::sleep"],
        within: Where::Code,
        // The kill-test draws the instant of each kill.
        homes: &["crates/", "bench/", "testkit/", "xtask/", "fuzz/", "tests/kill/"],
        why: "a whole-system test awaits an event: testkit::until",
    },
];

/// Text that no file holds: where somebody's machine keeps the tree, and who served its packages.
const MACHINE: &[&str] = &[
    "/work/main",
    "/work/shared",
    "/farm/",
    "artifactory",
    "/root/.cargo/registry",
    "/tmp/pinfold/",
];

pub(crate) fn check(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for path in repo.files()? {
        if path == SELF || is_binary(&path) {
            continue;
        }
        let text = repo.text(&path)?;
        problems.extend(judge_text(&path, &text));
        if has_ending(&path, "rs") {
            problems.extend(judge_rust(&path, &text));
        }
    }
    Ok(problems)
}

fn is_binary(path: &str) -> bool {
    ["png", "gz", "tar", "zst", "lock"].iter().any(|ending| has_ending(path, ending))
}

fn judge_text(path: &str, text: &str) -> Vec<Problem> {
    let found = |line: &str| MACHINE.iter().find(|mark| line.contains(**mark));
    text.lines()
        .enumerate()
        .filter_map(|(at, line)| {
            let mark = found(line)?;
            Some(Problem::at(path, at + 1, format!("holds {mark:?}: one machine's own matter")))
        })
        .collect()
}

fn judge_rust(path: &str, text: &str) -> Vec<Problem> {
    let source = split(text);
    let in_test_folder = path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.ends_with("/build.rs");
    let product_lines = if in_test_folder {
        0
    } else {
        source
            .code
            .lines()
            .position(|line| line.trim_start().starts_with("#[cfg(test)]"))
            .unwrap_or(usize::MAX)
    };
    let mut problems = Vec::new();
    for (at, (code, comment)) in source.code.lines().zip(source.comments.lines()).enumerate() {
        for ban in BANS {
            if ban.homes.iter().any(|home| path.starts_with(home))
                || (ban.within == Where::Product && at >= product_lines)
            {
                continue;
            }
            let hit = ban
                .words
                .iter()
                .find(|word| has(code, word) || (ban.within == Where::All && has(comment, word)));
            if let Some(word) = hit {
                problems.push(Problem::at(path, at + 1, format!("{word}: {}", ban.why)));
            }
        }
    }
    problems
}

/// Plain names have edges; anything with punctuation at its edge is looked for as it stands.
fn has(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    if edge(word.chars().next()) && edge(word.chars().next_back()) {
        has_word(line, word)
    } else {
        line.contains(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_outside_their_rooms() {
        for (path, text) in [
            ("crates/pinfold-node/src/a.rs", "fn f() { todo!() }"),
            ("crates/pinfold-node/src/a.rs", "// TODO later"),
            ("crates/pinfold-node/src/a.rs", "#[ignore = \"slow\"]"),
            ("crates/pinfold-node/src/a.rs", "#[allow(dead_code)]"),
            ("crates/pinfold-node/src/a.rs", "use std::process::Command;"),
            ("crates/pinfold-node/src/a.rs", "TcpStream::connect(x)"),
            ("crates/pinfold-node/src/a.rs", "sqlx::query(\"\")"),
            ("crates/pinfold-control/src/a.rs", "use axum::Router;"),
            ("crates/pinfold-image/src/a.rs", "reqwest::get(x)"),
            ("tests/lifecycle/main.rs", "std::thread::sleep(x);"),
        ] {
            assert_eq!(judge_rust(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn words_are_fine_at_home_and_in_tests() {
        for (path, text) in [
            ("crates/pinfold-egress/src/a.rs", "TcpStream::connect(x)"),
            ("crates/pinfold-store/src/a.rs", "sqlx::query(\"\")"),
            ("crates/pinfold-node/src/a.rs", "let s = \"todo! TcpListener\";"),
            (
                "crates/pinfold-node/src/a.rs",
                "fn f() {}\n#[cfg(test)]\nmod t { use std::process::Command; }",
            ),
            ("crates/pinfold-node/tests/it.rs", "use std::process::Command;"),
            ("crates/pinfold-node/src/a.rs", "#[expect(dead_code, reason = \"x\")]"),
        ] {
            assert_eq!(judge_rust(path, text), Vec::new(), "{path}: {text}");
        }
    }

    #[test]
    fn machine_paths_are_found_in_any_text() {
        assert_eq!(judge_text("README.md", "fine\ncd /work/main\n").len(), 1);
        assert!(judge_text("README.md", "the overlay's upper/0 and work/0").is_empty());
    }
}
