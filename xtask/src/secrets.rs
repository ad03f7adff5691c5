//! No key material in the tree or in its history (AX-16).
//!
//! Looks for shapes that are hardly ever anything else: private keys, and tokens with a
//! vendor's own prefix. Samples that tests need are put together at run time.

use crate::repo::{Problem, Repo};

/// A shape: what stands first, what may follow, and how much of it makes a secret.
struct Shape {
    name: &'static str,
    prefix: &'static str,
    follows: fn(char) -> bool,
    at_least: usize,
}

fn base64url(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn upper(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit()
}

fn key_title(c: char) -> bool {
    c.is_ascii_uppercase() || c == ' '
}

const SHAPES: &[Shape] = &[
    Shape { name: "GitHub token", prefix: "ghp_", follows: base64url, at_least: 30 },
    Shape { name: "GitHub token", prefix: "gho_", follows: base64url, at_least: 30 },
    Shape { name: "GitHub token", prefix: "ghs_", follows: base64url, at_least: 30 },
    Shape { name: "GitHub token", prefix: "github_pat_", follows: base64url, at_least: 30 },
    Shape { name: "GitLab token", prefix: "glpat-", follows: base64url, at_least: 20 },
    Shape { name: "AWS key id", prefix: "AKIA", follows: upper, at_least: 16 },
    Shape { name: "Slack token", prefix: "xoxb-", follows: base64url, at_least: 20 },
    Shape { name: "model provider's key", prefix: "sk-ant-", follows: base64url, at_least: 20 },
    Shape { name: "model provider's key", prefix: "sk-proj-", follows: base64url, at_least: 20 },
    Shape { name: "registry token", prefix: "dckr_pat_", follows: base64url, at_least: 20 },
    Shape { name: "package token", prefix: "npm_", follows: base64url, at_least: 36 },
    Shape { name: "package token", prefix: "pypi-", follows: base64url, at_least: 50 },
];

pub(crate) fn check(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for path in repo.files()? {
        problems.extend(judge_name(&path));
        for (at, line) in repo.text(&path)?.lines().enumerate() {
            problems.extend(judge(line).map(|name| Problem::at(&path, at + 1, name)));
        }
    }
    problems.extend(check_history(repo)?);
    Ok(problems)
}

/// Every line that a commit ever added, and every message.
fn check_history(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    let words = [
        "log",
        "--all",
        "--patch",
        "--no-color",
        "--no-ext-diff",
        "--unified=0",
        "--format=commit %H%n%B",
    ];
    let log = repo.output("git", &words)?;
    Ok(judge_log(&String::from_utf8_lossy(&log)))
}

fn judge_log(log: &str) -> Vec<Problem> {
    let mut commit = "history";
    let mut problems = Vec::new();
    for line in log.lines() {
        if let Some(id) = line.strip_prefix("commit ") {
            commit = id.split_whitespace().next().unwrap_or(id);
        } else if !line.starts_with('-')
            && let Some(name) = judge(line)
        {
            problems.push(Problem::new(format!("commit {commit}"), name));
        }
    }
    problems
}

/// Files that hold nothing but secrets.
fn judge_name(path: &str) -> Option<Problem> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let template = name.ends_with(".example") || name.ends_with(".template");
    let secret = name == ".env"
        || name.starts_with(".env.")
        || name.starts_with("id_rsa")
        || name.starts_with("id_ed25519")
        || name == ".netrc"
        || name == ".npmrc";
    (secret && !template)
        .then(|| Problem::new(path, "a file of this name holds secrets; track a .example of it"))
}

/// The name of the secret in a line.
fn judge(line: &str) -> Option<&'static str> {
    // A PEM header: the dashes, a title in capitals, and the words that only a private one has.
    let dashes = "-".repeat(5);
    for (at, _) in line.match_indices(&format!("{dashes}BEGIN ")) {
        let title: String =
            line[at + 11..].chars().take_while(|c| key_title(*c)).take(64).collect();
        if title.ends_with(concat!("PRIVATE", " KEY"))
            || title.contains(concat!("PRIVATE", " KEY BLOCK"))
        {
            return Some("a private key");
        }
    }
    SHAPES.iter().find_map(|shape| {
        line.match_indices(shape.prefix).find_map(|(at, _)| {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                return None;
            }
            let rest = &line[at + shape.prefix.len()..];
            let run = rest.chars().take_while(|c| (shape.follows)(*c)).count();
            (run >= shape.at_least).then_some(shape.name)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_material_is_found() {
        let key = format!("{}BEGIN OPENSSH PRIVATE{} KEY{}", "-".repeat(5), "", "-".repeat(5));
        assert_eq!(judge(&key), Some("a private key"));
        let token = format!("url = https://{}{}@host", "ghp_", "a1B2".repeat(9));
        assert_eq!(judge(&token), Some("GitHub token"));
        let id = format!("{}{}", "AKIA", "ABCDEFGH12345678");
        assert_eq!(judge(&id), Some("AWS key id"));
    }

    #[test]
    fn talk_of_keys_is_fine() {
        let public = format!("{}BEGIN PUBLIC KEY{}", "-".repeat(5), "-".repeat(5));
        for line in
            [public.as_str(), "a token starts with ghp_ and more", "npm_config_cache=x", "AKIA"]
        {
            assert_eq!(judge(line), None, "{line}");
        }
    }

    #[test]
    fn history_is_read_with_its_commits() {
        let token = format!("{}{}", "glpat-", "x".repeat(20));
        let log = format!("commit abc\nsubject\n+token = {token}\n-token = {token}\n");
        let found = judge_log(&log);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "commit abc");
    }

    #[test]
    fn secret_files_need_a_template_name() {
        assert!(judge_name("deploy/.env").is_some());
        assert!(judge_name("deploy/.env.example").is_none());
        assert!(judge_name("id_ed25519_node").is_some());
        assert!(judge_name("src/environment.rs").is_none());
    }
}
