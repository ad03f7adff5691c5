//! Searching files, by the programs inside the workspace: nothing of it is read on this machine.

use std::fmt::Write;

use pinfold_auth::ops;
use pinfold_control::{ExecEvent, ExecInput as _, ExecSession, Node};
use pinfold_types::{
    Error, ErrorCode, Result,
    exec::{ExecSpec, check_path},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{count, invalid};
use crate::{
    call::Call,
    limits::{DEFAULT_TIMEOUT_MS, MAX_MATCHES, MAX_OUTPUT_BYTES},
    tool::{Effect, Info, Reply, Tool},
};

/// Longest pattern.
const MAX_PATTERN_BYTES: usize = 1024;
/// Characters of a line that are shown.
const MAX_LINE_CHARS: usize = 300;

pub(crate) struct Search;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Absolute path of the directory to search, with all below it.
    path: String,
    /// Extended regular expression (grep -E) to find in text files. Leave out to find files by
    /// name.
    pattern: Option<String>,
    /// Only files whose name fits this, such as *.rs.
    glob: Option<String>,
    /// Upper and lower case are the same in the pattern.
    #[serde(default)]
    ignore_case: bool,
    /// Most matches, 1 to 1000. Default 100.
    limit: Option<u64>,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Found {
    matches: Vec<Match>,
    /// There are more than these.
    more: bool,
}

/// A line, or a file.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Match {
    /// Absolute path.
    path: String,
    /// Number of the line, where a pattern was searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The line, cut to 300 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl<N: Node> Tool<N> for Search {
    const INFO: Info = Info {
        name: "file_search",
        title: "Search files",
        about: "Finds lines by a regular expression, or files by name, below a directory. Uses \
                grep and find of the workspace. Next: file_read around a match.",
        operations: &["exec.run"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = SearchInput;
    type Output = Found;

    async fn run(call: Call<N>, input: SearchInput) -> Result<Reply<Found>> {
        let limit = input.limit.unwrap_or(100);
        if !(1..=MAX_MATCHES).contains(&limit) {
            return Err(invalid(format!("limit must be 1 to {MAX_MATCHES}")));
        }
        let limit = usize::try_from(limit).map_err(Error::internal)?;
        let spec = spec(&input)?;
        let grant = call.on::<ops::ExecRun>(&input.workspace).await?;
        let mut session = call.service.exec(grant, spec).await?;
        let most = usize::try_from(4 * MAX_OUTPUT_BYTES).map_err(Error::internal)?;
        let (mut out, mut err, mut more) = (Vec::new(), Vec::new(), false);
        let way_in = session.input();
        let code = loop {
            let event = tokio::select! {
                biased;
                () = call.cancelled.cancelled() => {
                    let _ended = way_in.signal(9).await;
                    return Err(Error::new(ErrorCode::Cancelled, "the search was cancelled"));
                }
                event = session.next() => event,
            };
            match event {
                Some(ExecEvent::Stdout(bytes)) => {
                    out.extend_from_slice(&bytes);
                    let ends = out.split(|byte| *byte == b'\n').count() - 1;
                    if !more && (ends > limit || out.len() > most) {
                        more = true;
                        let _ended = way_in.signal(9).await;
                    }
                    out.truncate(most);
                }
                Some(ExecEvent::Stderr(bytes)) if err.len() < 4096 => err.extend_from_slice(&bytes),
                Some(ExecEvent::Stderr(_)) => {}
                Some(ExecEvent::Exited(result)) => break result.shell_code(),
                Some(ExecEvent::Failed(error)) => return Err(error),
                None => return Err(Error::internal("a search ended without a result")),
            }
        };
        let mut matches = parse(&out, input.pattern.is_some());
        // Grep says 1 for nothing found; what cannot be read is told beside what was found.
        if !more && matches.is_empty() && code > 1 {
            let why = String::from_utf8_lossy(&err);
            let message =
                format!("the search failed: {}", why.trim().lines().next().unwrap_or("?"));
            return Err(Error::new(ErrorCode::Unprocessable, message)
                .hint("correct the pattern or path; an image without grep and find: use exec"));
        }
        more |= matches.len() > limit;
        matches.truncate(limit);
        let found = Found { matches, more };
        Ok(Reply::new(text(&found), found))
    }
}

fn spec(input: &SearchInput) -> Result<ExecSpec> {
    check_path(&input.path)?;
    let too_long = |text: &Option<String>| {
        text.as_ref().is_some_and(|text| text.len() > MAX_PATTERN_BYTES || text.contains('\n'))
    };
    if too_long(&input.pattern) || too_long(&input.glob) {
        return Err(invalid(format!("pattern and glob are one line of {MAX_PATTERN_BYTES} bytes")));
    }
    let mut argv: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
    match (&input.pattern, &input.glob) {
        (Some(pattern), glob) => {
            add(&["grep", "-rnIEZ", "--color=never"]);
            if input.ignore_case {
                add(&["-i"]);
            }
            if let Some(glob) = glob {
                add(&[&format!("--include={glob}")]);
            }
            add(&["-e", pattern, "--", &input.path]);
        }
        (None, Some(glob)) => {
            let name = if input.ignore_case { "-iname" } else { "-name" };
            add(&["find", &input.path, name, glob]);
        }
        (None, None) => return Err(invalid("give pattern, glob or both")),
    }
    let mut spec = ExecSpec::argv(argv);
    spec.timeout_ms = Some(DEFAULT_TIMEOUT_MS);
    spec.cwd = Some("/".into());
    spec.env.insert("LC_ALL".into(), "C.UTF-8".into());
    Ok(spec)
}

/// Lines of `path NUL number : text`, or of a path alone.
fn parse(out: &[u8], lines: bool) -> Vec<Match> {
    // What follows the last line end was cut off.
    let whole = out.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&out[..whole]);
    text.lines()
        .filter_map(|line| {
            if !lines {
                return Some(Match { path: line.to_owned(), line: None, text: None });
            }
            let (path, rest) = line.split_once('\0')?;
            let (number, text) = rest.split_once(':')?;
            Some(Match {
                path: path.to_owned(),
                line: Some(number.parse().ok()?),
                text: Some(text.chars().take(MAX_LINE_CHARS).collect()),
            })
        })
        .collect()
}

fn text(found: &Found) -> String {
    let mut text = count(found.matches.len(), "match").replace("matchs", "matches");
    for one in &found.matches {
        let _infallible = write!(text, "\n{}", one.path);
        if let (Some(line), Some(content)) = (one.line, &one.text) {
            let _infallible = write!(text, ":{line}: {content}");
        }
    }
    if found.more {
        text.push_str("\nThere are more: raise limit, or narrow path, glob or pattern");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_read_and_what_is_cut_off_is_dropped() {
        let found = parse(b"/a:1\x007:x: y\n/b\x008:z\n/c\x009", true);
        let read: Vec<_> = found.iter().map(|one| (one.path.as_str(), one.line)).collect();
        assert_eq!(read, [("/a:1", Some(7)), ("/b", Some(8))]);
        assert_eq!(found[0].text.as_deref(), Some("x: y"));
        assert_eq!(parse(b"/a\n/b\n", false).len(), 2);
    }

    #[test]
    fn arguments_cannot_become_options() {
        let input = SearchInput {
            workspace: "w".into(),
            path: "/x".into(),
            pattern: Some("-f/etc/shadow".into()),
            glob: None,
            ignore_case: false,
            limit: None,
        };
        let pinfold_types::exec::Command::Argv(argv) = spec(&input).expect("fine").command else {
            panic!("no shell");
        };
        assert_eq!(argv[3..], ["-e", "-f/etc/shadow", "--", "/x"]);
        assert!(spec(&SearchInput { path: "-x".into(), ..input }).is_err());
    }
}
