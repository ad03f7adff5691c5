//! The pages for people: links lead somewhere, and every `pinfold` line that is shown is one that
//! the program knows.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Component, Path, PathBuf},
};

use anyhow::ensure;

use crate::repo::{Problem, Repo, has_ending};

/// The program's help, all of it: written by `cargo xtask cli-reference`, never by hand.
const REFERENCE: &str = "docs/cli-reference.md";
/// What the program says of its API: the words to ask with, and the file that holds the answer.
const API: &[(&[&str], &str)] =
    &[(&["openapi"], "docs/openapi.json"), (&["openapi", "--operations"], "docs/operations.md")];
/// Where a debug build lands.
const PROGRAM: &str = "target/x86_64-unknown-linux-gnu/debug/pinfold";

pub(crate) fn check(repo: &Repo, program: Option<&Path>) -> anyhow::Result<Vec<Problem>> {
    let pages: Vec<(String, String)> = repo
        .files()?
        .into_iter()
        .filter(|path| has_ending(path, "md"))
        .map(|path| repo.text(&path).map(|text| (path, text)))
        .collect::<anyhow::Result<_>>()?;
    let mut problems = Vec::new();
    for (path, text) in &pages {
        problems.extend(judge_links(path, text, &|target| repo.text(target).ok(), &|target| {
            repo.path(target).exists()
        }));
    }
    let mut known = help_of_program(repo, program);
    for (path, text) in &pages {
        for (line, command) in console_lines(text) {
            if let Some(wrong) = known.judge(&command)? {
                problems.push(Problem::at(path, line, wrong));
            }
        }
    }
    if repo.text(REFERENCE).ok() != Some(known.reference()?) {
        let mend = "is not what the program says: cargo xtask cli-reference";
        problems.push(Problem::new(REFERENCE, mend));
    }
    for (words, path) in API {
        if repo.text(path).ok() != Some(of_program(repo, program, words)?) {
            problems.push(Problem::new(
                *path,
                "is not what the program says: cargo xtask api-reference",
            ));
        }
    }
    Ok(problems)
}

/// Writes every file of [`API`].
pub(crate) fn write_api(repo: &Repo, program: Option<&Path>) -> anyhow::Result<()> {
    for (words, path) in API {
        std::fs::write(repo.path(path), of_program(repo, program, words)?)?;
    }
    Ok(())
}

/// What the program prints.
fn of_program(repo: &Repo, program: Option<&Path>, words: &[&str]) -> anyhow::Result<String> {
    let program = program.map_or_else(|| default_program(repo), Path::to_path_buf);
    ensure!(program.is_file(), "{} is not there: `make build` first", program.display());
    let text = repo.output(&program.to_string_lossy(), words)?;
    Ok(String::from_utf8(text)?)
}

/// Writes [`REFERENCE`].
pub(crate) fn write_reference(repo: &Repo, program: Option<&Path>) -> anyhow::Result<()> {
    let text = help_of_program(repo, program).reference()?;
    Ok(std::fs::write(repo.path(REFERENCE), text)?)
}

fn help_of_program(
    repo: &Repo,
    program: Option<&Path>,
) -> Help<impl FnMut(&[String]) -> anyhow::Result<String>> {
    let program = program.map(Path::to_path_buf);
    Help::of(move |words: &[String]| {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        of_program(repo, program.as_deref(), &words)
    })
}

fn default_program(repo: &Repo) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => Path::new(&target).join(PROGRAM.strip_prefix("target/").unwrap_or(PROGRAM)),
        None => repo.path(PROGRAM),
    }
}

/// What `--help` says of each subcommand, asked once.
struct Help<F> {
    ask: F,
    pages: BTreeMap<Vec<String>, String>,
}

impl<F: FnMut(&[String]) -> anyhow::Result<String>> Help<F> {
    fn of(ask: F) -> Self {
        Self { ask, pages: BTreeMap::new() }
    }

    fn page(&mut self, path: &[String]) -> anyhow::Result<&str> {
        if !self.pages.contains_key(path) {
            let text = (self.ask)(path)?;
            self.pages.insert(path.to_vec(), text);
        }
        Ok(&self.pages[path])
    }

    /// Every command's help, depth first, as a page.
    fn reference(&mut self) -> anyhow::Result<String> {
        let mut text = String::from(
            "# Command reference\n\nWritten by the program itself. [cli.md](cli.md) explains how the commands belong together.\n",
        );
        let mut open = vec![Vec::new()];
        while let Some(path) = open.pop() {
            let help = self.page(&path)?.to_owned();
            let name = path.join(" ");
            let depth = "#".repeat(path.len().max(1) + 1);
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            let body = lines.join("\n");
            let title = format!("{depth} pinfold {name}");
            write!(text, "\n{}\n\n```text\n{}\n```\n", title.trim_end(), body.trim())?;
            open.extend(
                commands(&help)
                    .into_iter()
                    // `help` says the same of the same commands.
                    .filter(|command| command != "help")
                    .rev()
                    .map(|command| path.iter().cloned().chain([command]).collect::<Vec<String>>()),
            );
        }
        Ok(text)
    }

    /// What is wrong with a command line, its words after `pinfold`.
    fn judge(&mut self, words: &[String]) -> anyhow::Result<Option<String>> {
        let mut path: Vec<String> = Vec::new();
        for word in words {
            if word == "--" {
                break;
            }
            let help = self.page(&path)?;
            if let Some(flag) = word.strip_prefix("--") {
                let name = format!("--{}", flag.split('=').next().unwrap_or(flag));
                if !has_flag(help, &name) {
                    return Ok(Some(format!("`pinfold {}` has no {name}", path.join(" "))));
                }
                continue;
            }
            if word.starts_with('-') {
                continue;
            }
            let commands = commands(help);
            if commands.iter().any(|command| command == word) {
                path.push(word.clone());
            } else if !commands.is_empty() {
                return Ok(Some(format!("`pinfold {}` has no command {word}", path.join(" "))));
            }
        }
        Ok(None)
    }
}

fn has_flag(help: &str, name: &str) -> bool {
    help.match_indices(name).any(|(at, _)| {
        !help[at + name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-')
    })
}

/// The names below `Commands:` in clap's help, and their aliases.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| line.trim_end() != "Commands:")
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with("  "))
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// Lines of fenced console blocks that start with a prompt and run pinfold: line number and words.
fn console_lines(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut within = false;
    let mut found = Vec::new();
    let mut joined = String::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            within = !within && language == "console";
            continue;
        }
        if !within {
            continue;
        }
        let continued = !joined.is_empty();
        let Some(command) = line
            .strip_prefix("$ ")
            .or_else(|| line.strip_prefix("# "))
            .or(continued.then_some(line))
        else {
            continue;
        };
        joined.push_str(command.trim_end_matches('\\'));
        if command.ends_with('\\') {
            continue;
        }
        for part in shell_parts(&std::mem::take(&mut joined)) {
            let start =
                part.iter().position(|word| word == "pinfold" || word.ends_with("/pinfold"));
            // Variables and `sudo` may stand in front; anything else is another program's line.
            let ours = start.filter(|start| {
                part[..*start].iter().all(|word| word.contains('=') || word == "sudo")
            });
            if let Some(start) = ours {
                found.push((at + 1, part[start + 1..].to_vec()));
            }
        }
    }
    found
}

/// The commands of a shell line, each as words; quotes are taken off, redirections end a command.
fn shell_parts(line: &str) -> Vec<Vec<String>> {
    let mut parts = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    let mut started = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                started = true;
            }
            (None, '#') if word.is_empty() && !started => break,
            (None, '|' | ';' | '&' | '(' | ')' | '>' | '<') => {
                end_word(&mut word, &mut started, &mut parts);
                parts.push(Vec::new());
            }
            (None, c) if c.is_whitespace() => end_word(&mut word, &mut started, &mut parts),
            (None, '\\') => word.extend(chars.next()),
            (None, c) => {
                started = true;
                word.push(c);
            }
        }
    }
    end_word(&mut word, &mut started, &mut parts);
    parts.retain(|part| !part.is_empty());
    parts
}

fn end_word(word: &mut String, started: &mut bool, parts: &mut [Vec<String>]) {
    if *started || !word.is_empty() {
        if let Some(part) = parts.last_mut() {
            part.push(std::mem::take(word));
        }
        *started = false;
    }
}

/// Relative links of a page that lead nowhere, or to a heading that is not there.
fn judge_links(
    path: &str,
    text: &str,
    read: &dyn Fn(&str) -> Option<String>,
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let resolved = if file.is_empty() { path.to_owned() } else { join(path, file) };
        if !exists(&resolved) {
            problems.push(Problem::at(path, line, format!("{target} leads nowhere")));
        } else if !anchor.is_empty()
            && let Some(page) = read(&resolved)
            && !headings(&page).iter().any(|heading| heading == anchor)
        {
            problems.push(Problem::at(path, line, format!("{target}: no such heading")));
        }
    }
    problems
}

fn join(page: &str, link: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let base = Path::new(page).parent().unwrap_or(Path::new(""));
    for part in base.join(link).components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

/// Targets of `[text](target)` outside code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let plain: String = line.split('`').step_by(2).collect();
        let mut rest = plain.as_str();
        while let Some(open) = rest.find("](") {
            rest = &rest[open + 2..];
            let Some(close) = rest.find(')') else { break };
            let target = rest[..close].split_whitespace().next().unwrap_or_default();
            found.push((at + 1, target.trim_matches(['<', '>']).to_owned()));
            rest = &rest[close..];
        }
    }
    found
}

/// Headings as they stand in links: lower case, spaces to hyphens, other marks dropped.
fn headings(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "Walls\n\nCommands:\n  run       throw-away\n  snapshot  points\n            more words\n\nOptions:\n      --json  for programs\n";
    const RUN: &str =
        "Usage: pinfold run [OPTIONS] -- CMD\n\nOptions:\n      --image <IMAGE>\n      --json\n";
    const SNAPSHOT: &str = "Commands:\n  create  one\n  ls      all\n";

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn judge(line: &str) -> Option<String> {
        let mut help = Help::of(|path: &[String]| {
            Ok(match path.join(" ").as_str() {
                "run" => RUN,
                "snapshot" => SNAPSHOT,
                "" => TOP,
                _ => "Options:\n  -h, --help\n",
            }
            .to_owned())
        });
        help.judge(&words(line)).expect("the help is there")
    }

    #[test]
    fn shown_commands_are_compared_with_the_help() {
        for good in [
            "run --image debian:12 -- pinfold --nonsense",
            "--json run -- true",
            "snapshot ls",
            "snapshot create x",
        ] {
            assert_eq!(judge(good), None, "{good}");
        }
        for bad in ["walk", "run --imag x -- true", "run --images x", "snapshot burn", "--yaml run"]
        {
            assert!(judge(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn the_reference_holds_every_command() {
        let mut help = Help::of(|path: &[String]| {
            Ok(match path.join(" ").as_str() {
                "" => TOP,
                "snapshot" => SNAPSHOT,
                _ => "Usage\n",
            }
            .to_owned())
        });
        let text = help.reference().expect("the help is there");
        let titles: Vec<&str> = text.lines().filter(|line| line.starts_with("##")).collect();
        assert_eq!(
            titles,
            [
                "## pinfold",
                "## pinfold run",
                "## pinfold snapshot",
                "### pinfold snapshot create",
                "### pinfold snapshot ls"
            ]
        );
    }

    #[test]
    fn only_console_blocks_are_commands() {
        let page = "```console\n$ pinfold run -- echo 'a | b' | wc -l\nhello\n# FOO=1 sudo pinfold ls && pinfold info x > y\n$ echo pinfold nonsense\n$ pinfold run \\\n    --image x -- true\n```\n\n```sh\n$ pinfold nonsense\n```\n";
        let lines = console_lines(page);
        assert_eq!(
            lines,
            [
                (2, words("run -- echo").into_iter().chain(["a | b".to_owned()]).collect()),
                (4, words("ls")),
                (4, words("info x")),
                (7, words("run --image x -- true")),
            ]
        );
    }

    #[test]
    fn links_lead_somewhere() {
        let page = "[a](b.md) [h](b.md#the-walls) [gone](c.md) [no](b.md#none) [web](https://example.com) `[x](y)`\n";
        let read = |path: &str| (path == "docs/b.md").then(|| "# The walls\n".to_owned());
        let found = judge_links("docs/a.md", page, &read, &|path| path == "docs/b.md");
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(join("docs/security/a.md", "../b.md"), "docs/b.md");
    }
}
