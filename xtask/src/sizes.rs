//! A source file stays readable in one sitting: over 500 lines is named, over 800 is refused.

use crate::repo::{Problem, Repo, has_ending};

const WARN_LINES: usize = 500;
const MOST_LINES: usize = 800;
const ENDINGS: &[&str] = &["rs", "ts", "tsx"];
/// Files that a program writes.
const GENERATED: &[&str] = &["generated/", ".gen."];

pub(crate) fn check(repo: &Repo) -> anyhow::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for path in repo.files()? {
        let counted = ENDINGS.iter().any(|ending| has_ending(&path, ending));
        if !counted || GENERATED.iter().any(|mark| path.contains(mark)) {
            continue;
        }
        let lines = repo.text(&path)?.lines().count();
        match judge(&path, lines) {
            Verdict::Fine => {}
            Verdict::Long => println!("sizes: {path} has {lines} lines; is it two ideas?"),
            Verdict::Refused(problem) => problems.push(problem),
        }
    }
    Ok(problems)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Long,
    Refused(Problem),
}

fn judge(path: &str, lines: usize) -> Verdict {
    match lines {
        0..=WARN_LINES => Verdict::Fine,
        501..=MOST_LINES => Verdict::Long,
        _ => Verdict::Refused(Problem::new(
            path,
            format!("{lines} lines, more than {MOST_LINES}: split it"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_named_and_longer_ones_refused() {
        assert_eq!(judge("a.rs", 500), Verdict::Fine);
        assert_eq!(judge("a.rs", 501), Verdict::Long);
        assert_eq!(judge("a.rs", 800), Verdict::Long);
        assert!(matches!(judge("a.rs", 801), Verdict::Refused(_)));
    }
}
