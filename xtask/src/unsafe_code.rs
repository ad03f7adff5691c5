//! Unsafe code lives in `pinfold-sys`, and each use says why it is sound.

use crate::{
    repo::{Problem, Repo},
    source::{has_word, split},
};

const HOME: &str = "crates/pinfold-sys/";
/// The attacker makes raw system calls with wrong arguments on purpose, which no safe wrapper can
/// offer; it runs inside a workspace and is never linked into another program.
const ATTACKER: &str = "crates/pinfold-attack/";
/// A SAFETY comment counts when it stands at most this many lines above, with nothing but
/// comments, attributes and the statement's own first lines between.
const REACH: usize = 12;

pub(crate) fn check(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    Ok(repo.rust_files()?.iter().flat_map(|(path, text)| judge(path, text)).collect())
}

fn judge(path: &str, text: &str) -> Vec<Problem> {
    let source = split(text);
    let code: Vec<&str> = source.code.lines().collect();
    let comments: Vec<&str> = source.comments.lines().collect();
    let mut problems = Vec::new();
    for (at, line) in code.iter().enumerate() {
        if !has_word(line, "unsafe") || path.starts_with(ATTACKER) {
            continue;
        }
        if !path.starts_with(HOME) {
            problems.push(Problem::at(path, at + 1, "unsafe code outside pinfold-sys"));
            continue;
        }
        // A declaration's contract is its `# Safety` section; a block argues in a SAFETY comment.
        let declares =
            ["unsafe fn", "unsafe extern", "unsafe trait"].iter().any(|form| line.contains(form));
        let wanted: &[&str] = if declares { &["# Safety", "SAFETY:"] } else { &["SAFETY:"] };
        let from = at.saturating_sub(REACH);
        let argued = comments
            .get(from..=at.min(comments.len().saturating_sub(1)))
            .unwrap_or_default()
            .iter()
            .any(|comment| wanted.iter().any(|mark| comment.contains(mark)));
        if !argued {
            problems.push(Problem::at(path, at + 1, "unsafe without a SAFETY comment above it"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_outside_its_room_is_found() {
        let found = judge("crates/pinfold-node/src/a.rs", "// SAFETY: no\nunsafe { f() }\n");
        assert_eq!(found.len(), 1);
        let fine = "#![forbid(unsafe_code)]\n// unsafe in words\nlet x = \"unsafe\";\n";
        assert!(judge("crates/pinfold-node/src/a.rs", fine).is_empty());
    }

    #[test]
    fn unsafe_without_an_argument_is_found() {
        let path = "crates/pinfold-sys/src/a.rs";
        assert_eq!(judge(path, "fn f() {\n    unsafe { g() }\n}\n").len(), 1);
        assert!(judge(path, "// SAFETY: g has no preconditions.\nunsafe { g() };\n").is_empty());
        assert!(
            judge(path, "/// # Safety\n/// The pointer is valid.\nunsafe fn g() {}\n").is_empty()
        );
        let far = format!("// SAFETY: far away.\n{}unsafe {{ g() }}\n", "f();\n".repeat(20));
        assert_eq!(judge(path, &far).len(), 1);
    }
}
