//! The house rules, checked by a machine: `cargo xtask check` runs them all.
//!
//! Each check is a function from the tree to a list of [`Problem`]s, with its rule as data at the
//! top of its file and tests on good and bad samples below.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that reports to people")]

mod bans;
mod controls;
mod deny;
mod docs;
mod floors;
mod outdated;
mod repo;
mod secrets;
mod sizes;
mod source;
mod unsafe_code;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use repo::{Problem, Repo};

const USAGE: &str = "\
usage: cargo xtask WORD
  check             every check below but deny and ci
  rules             those of them that need no build (all but docs)
  floors            rooms use only the floors below them
  sizes             no source file over 800 lines; over 500 is named
  unsafe            unsafe code in pinfold-sys only, each block with its SAFETY comment
  bans              crates and words that belong in one room, or nowhere
  controls          docs/security/controls.md against the tree
    --ran FILE      … and against the tests that ran (nextest's junit.xml)
  docs              links resolve; every `pinfold` line shown is known to the program
    --program FILE  … asked of this binary instead of the newest debug build
  cli-reference     write docs/cli-reference.md from the program's help
  api-reference     write docs/openapi.json and docs/operations.md from the program
  secrets           no key material in the tree or in its history
  deny              deny.toml's bans and licences from cargo's metadata, without cargo-deny
  outdated          dependencies with newer releases, and advisories where they can be checked
    --offline       … from what this machine knows already
  ci                what .ci/run runs";

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = words.first().map_or("help", String::as_str);
    let option = |name: &str| {
        words.iter().position(|w| w == name).and_then(|at| words.get(at + 1)).map(PathBuf::from)
    };
    let repo = Repo::find()?;
    let mut problems = Vec::new();
    let mut run = |name: &str, found: anyhow::Result<Vec<Problem>>| -> anyhow::Result<()> {
        let found = found.with_context(|| format!("the check {name} could not run"))?;
        println!("{name}: {}", if found.is_empty() { "ok" } else { "not as it must be" });
        problems.extend(found);
        Ok(())
    };
    match word {
        "check" | "rules" => {
            run("floors", floors::check(&repo))?;
            run("sizes", sizes::check(&repo))?;
            run("unsafe", unsafe_code::check(&repo))?;
            run("bans", bans::check(&repo))?;
            run("controls", controls::check(&repo, None))?;
            run("secrets", secrets::check(&repo))?;
            if word == "check" {
                run("docs", docs::check(&repo, None))?;
            }
        }
        "floors" => run(word, floors::check(&repo))?,
        "sizes" => run(word, sizes::check(&repo))?,
        "unsafe" => run(word, unsafe_code::check(&repo))?,
        "bans" => run(word, bans::check(&repo))?,
        "controls" => run(word, controls::check(&repo, option("--ran").as_deref()))?,
        "docs" => run(word, docs::check(&repo, option("--program").as_deref()))?,
        "secrets" => run(word, secrets::check(&repo))?,
        "deny" => run(word, deny::check(&repo))?,
        "cli-reference" => docs::write_reference(&repo, option("--program").as_deref())?,
        "api-reference" => docs::write_api(&repo, option("--program").as_deref())?,
        "outdated" => run(word, outdated::check(&repo, words.iter().any(|w| w == "--offline")))?,
        "ci" => {
            let status = repo.command("bash").arg(".ci/run").status()?;
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        other => bail!("unknown word {other:?}\n{USAGE}"),
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
