//! Files of steps: how a template image is built.
//!
//! ```text
//! # A line that starts with # says nothing.
//! FROM debian:bookworm
//! ENV LANG=C.UTF-8 EDITOR=vim
//! WORKDIR /srv/app
//! COPY src lib /srv/app/
//! RUN apt-get update && \
//!     apt-get install -y ripgrep
//! USER agent
//! CMD ["bash", "-l"]
//! ```
//!
//! A subset of what container files say, with the same meaning. `RUN` takes a line for `/bin/sh`,
//! or a JSON list of arguments; `CMD` likewise.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

use pinfold_types::{Error, ErrorCode, ImageName, image::MAX_STEPS_BYTES, name::excerpt};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{ImageError, Result as ImageResult},
    files,
};

/// Most steps.
pub const MAX_STEPS: usize = 300;
/// Longest line, its continuations included.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// Most files that one `COPY` takes.
const MAX_COPIED_FILES: u64 = 1_000_000;

/// A step, with the line it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// First line, from 1.
    pub line: usize,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a command in a workspace on the layers so far; what it changes becomes a layer.
    Run(Vec<String>),
    /// Copies files of the context; they become a layer.
    Copy {
        /// Relative to the context.
        sources: Vec<String>,
        /// Absolute, or relative to the working directory. Ends in `/` when it is a directory.
        target: String,
    },
    /// Sets variables for later steps and for the image.
    Env(BTreeMap<String, String>),
    /// Changes the directory for later steps and for the image; made where it is missing.
    Workdir(String),
    /// Changes the user for later steps and for the image.
    User(String),
    /// The command of the image.
    Cmd(Vec<String>),
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The image it starts from.
    pub from: ImageName,
    /// What follows.
    pub steps: Vec<Step>,
}

impl Steps {
    /// Reads a file of steps. An error names the line.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_STEPS_BYTES {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the file of steps is longer than {MAX_STEPS_BYTES} bytes"),
            ));
        }
        let mut from = None;
        let mut steps = Vec::new();
        for (line, text) in logical_lines(text)? {
            let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text.as_str(), ""));
            let word = word.to_ascii_uppercase();
            let rest = rest.trim();
            if from.is_none() {
                if word != "FROM" {
                    return Err(wrong(line, "the first step must be FROM"));
                }
                let name = rest.parse().map_err(|err: Error| wrong(line, &err.message))?;
                from = Some(name);
                continue;
            }
            if steps.len() >= MAX_STEPS {
                return Err(wrong(line, &format!("there are more than {MAX_STEPS} steps")));
            }
            let action = action(&word, rest, line)?;
            steps.push(Step { line, action });
        }
        let from = from.ok_or_else(|| wrong(1, "there is no FROM"))?;
        Ok(Self { from, steps })
    }

    /// A digest of the whole file, for the image's record.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{self:?}"));
        format!("sha256:{}", files::hex(&hash.finalize()))
    }
}

fn wrong(line: usize, why: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("line {line} of the steps: {why}"))
        .hint("steps are FROM, RUN, COPY, ENV, WORKDIR, USER and CMD; docs/images.md shows each")
}

/// Lines with their continuations, comments and empty lines left out.
fn logical_lines(text: &str) -> Result<Vec<(usize, String)>, Error> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end())) {
        if line.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
            return Err(wrong(number, "there is a control character in it"));
        }
        if line.trim_start().starts_with('#') || (open.is_none() && line.trim().is_empty()) {
            continue;
        }
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        let (start, mut whole) = open.take().unwrap_or((number, String::new()));
        whole.push_str(part);
        if whole.len() > MAX_LINE_BYTES {
            return Err(wrong(start, &format!("it is longer than {MAX_LINE_BYTES} bytes")));
        }
        if more {
            open = Some((start, whole));
        } else {
            found.push((start, whole.trim().to_owned()));
        }
    }
    match open {
        Some((start, _)) => Err(wrong(start, "it ends with a backslash and nothing after")),
        None => Ok(found),
    }
}

fn action(word: &str, rest: &str, line: usize) -> Result<Action, Error> {
    if rest.is_empty() {
        return Err(wrong(line, &format!("{word} needs an argument")));
    }
    match word {
        "RUN" => command(rest, line).map(Action::Run),
        "CMD" => command(rest, line).map(Action::Cmd),
        "COPY" => copy(rest, line),
        "ENV" => env(rest, line).map(Action::Env),
        "WORKDIR" => Ok(Action::Workdir(rest.to_owned())),
        "USER" => Ok(Action::User(rest.to_owned())),
        "FROM" => Err(wrong(line, "there is only one FROM, at the top")),
        "ADD" => Err(wrong(
            line,
            "ADD is not a step; use COPY (steps have no network: fetch the file first)",
        )),
        "ARG" => Err(wrong(line, "ARG is not a step; use ENV")),
        "ENTRYPOINT" => Err(wrong(line, "ENTRYPOINT is not a step; use CMD")),
        other => Err(wrong(line, &format!("{:?} is not a step", excerpt(other)))),
    }
}

fn command(rest: &str, line: usize) -> Result<Vec<String>, Error> {
    if rest.starts_with('[') {
        let words: Vec<String> = serde_json::from_str(rest)
            .map_err(|_| wrong(line, "it starts like a JSON list of words and is none"))?;
        if words.first().is_none_or(String::is_empty) || words.iter().any(|w| w.contains('\0')) {
            return Err(wrong(line, "the command is empty or holds NUL"));
        }
        return Ok(words);
    }
    Ok(vec!["/bin/sh".into(), "-c".into(), rest.into()])
}

fn copy(rest: &str, line: usize) -> Result<Action, Error> {
    if rest.starts_with("--") {
        return Err(wrong(line, "COPY takes no options; use RUN chown or chmod"));
    }
    let mut words = words(rest, line)?;
    let Some(target) = words.pop().filter(|_| !words.is_empty()) else {
        return Err(wrong(line, "COPY needs at least one source and a target"));
    };
    for source in &words {
        let path = Path::new(source);
        let inside =
            path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(wrong(line, &format!("{:?} lies outside the context", excerpt(source))));
        }
    }
    if words.len() > 1 && !target.ends_with('/') {
        return Err(wrong(line, "with several sources the target must end in /"));
    }
    Ok(Action::Copy { sources: words, target })
}

fn env(rest: &str, line: usize) -> Result<BTreeMap<String, String>, Error> {
    let mut found = BTreeMap::new();
    for word in words(rest, line)? {
        let Some((name, value)) = word.split_once('=') else {
            return Err(wrong(line, "ENV takes NAME=value, with quotes where there are spaces"));
        };
        let start = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(start) || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return Err(wrong(line, &format!("{:?} is not a variable's name", excerpt(name))));
        }
        found.insert(name.to_owned(), value.to_owned());
    }
    Ok(found)
}

/// Words parted by spaces; quotes keep them together, a backslash takes the next character.
fn words(text: &str, line: usize) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some('"') | None, '\\') => {
                let next = letters.next().ok_or_else(|| wrong(line, "it ends in a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            (None, ' ' | '\t') => found.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(wrong(line, "a quote is not closed"));
    }
    found.extend(word);
    Ok(found)
}

/// The cache key of a step: what lies below, what it does, in what surroundings, on which files.
///
/// `below` are the digests of the layers so far, lowest first; `surroundings` whatever else its
/// outcome depends on (environment, directory, user); `copied` the [`content_digest`] of what it
/// copies.
pub fn cache_key(
    below: &[String],
    action: &Action,
    surroundings: &[(String, String)],
    copied: Option<&str>,
) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    part("pinfold step 1");
    part(&below.join("\n"));
    part(&format!("{action:?}"));
    for (name, value) in surroundings {
        part(name);
        part(value);
    }
    part(copied.unwrap_or(""));
    files::hex(&hash.finalize())
}

/// A digest of files of a context: names, kinds, permission bits and content, not times and
/// owners. Links are not followed.
pub fn content_digest(context: &Path, sources: &[String]) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut count = 0;
    for source in sources {
        let path = context.join(source);
        if fs::symlink_metadata(&path).is_err() {
            return Err(Error::not_found("file in the context", source));
        }
        add(&mut hash, context, &path, &mut count)?;
    }
    Ok(files::hex(&hash.finalize()))
}

fn add(hash: &mut Sha256, context: &Path, path: &Path, count: &mut u64) -> ImageResult<()> {
    *count += 1;
    if *count > MAX_COPIED_FILES {
        return Err(ImageError::Limit(format!(
            "a COPY step takes more than {MAX_COPIED_FILES} files"
        )));
    }
    let facts = fs::symlink_metadata(path).map_err(ImageError::io("look at", path))?;
    let name = path.strip_prefix(context).unwrap_or(path).as_os_str().as_bytes();
    hash.update((name.len() as u64).to_be_bytes());
    hash.update(name);
    hash.update(facts.mode().to_be_bytes());
    if facts.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path)
            .map_err(ImageError::io("read", path))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()
            .map_err(ImageError::io("read", path))?;
        entries.sort();
        hash.update((entries.len() as u64).to_be_bytes());
        for entry in entries {
            add(hash, context, &entry, count)?;
        }
    } else if facts.is_symlink() {
        let target = fs::read_link(path).map_err(ImageError::io("read", path))?;
        hash.update(target.as_os_str().as_bytes());
    } else if facts.is_file() {
        hash.update(facts.len().to_be_bytes());
        let mut file = fs::File::open(path).map_err(ImageError::io("open", path))?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let got = file.read(&mut buffer).map_err(ImageError::io("read", path))?;
            if got == 0 {
                break;
            }
            hash.update(&buffer[..got]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_whole_file_is_read() {
        let steps = Steps::parse(
            "# c\n\nFROM debian:bookworm\nrun apt-get update && \\\n  # not a comment of sh\n  \
             apt-get install -y x\nENV A=1 B=\"two words\" C='x\\y'\nCOPY a \"b c\" /d/\n\
             CMD [\"bash\", \"-l\"]\nUSER agent\nWORKDIR /w",
        )
        .expect("parses");
        assert_eq!(steps.from.as_str(), "debian:bookworm");
        assert_eq!(steps.steps[0].line, 4);
        let Action::Run(run) = &steps.steps[0].action else { panic!("a RUN") };
        assert_eq!(run[2], "apt-get update &&   apt-get install -y x");
        let Action::Env(env) = &steps.steps[1].action else { panic!("an ENV") };
        assert_eq!((env["B"].as_str(), env["C"].as_str()), ("two words", "x\\y"));
        assert_eq!(steps.steps[3].action, Action::Cmd(vec!["bash".into(), "-l".into()]));
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            ("", 1),
            ("RUN x", 1),
            ("FROM a\nRUN", 2),
            ("FROM a\n\nFROM b", 3),
            ("FROM A", 1),
            ("FROM a\nADD x y", 2),
            ("FROM a\nCOPY x", 2),
            ("FROM a\nCOPY ../x /y", 2),
            ("FROM a\nCOPY /x /y", 2),
            ("FROM a\nCOPY x y z", 2),
            ("FROM a\nENV 1=2", 2),
            ("FROM a\nENV A", 2),
            ("FROM a\nENV A=\"x", 2),
            ("FROM a\nRUN x \\", 2),
            ("FROM a\nRUN [\"x\"", 2),
            ("FROM a\nCMD []", 2),
            ("FROM a\nRUN x\0y", 2),
            ("FROM a\nCOPY --chown=1 x y", 2),
            ("FROM a\nWAT x", 2),
        ] {
            let refused = Steps::parse(text).expect_err(text);
            assert!(refused.message.starts_with(&format!("line {line} ")), "{text}: {refused}");
        }
        let many = format!("FROM a\n{}", "RUN x\n".repeat(MAX_STEPS + 1));
        assert!(Steps::parse(&many).is_err());
        let long = format!("FROM a\nRUN {}", "x".repeat(MAX_LINE_BYTES));
        assert!(Steps::parse(&long).is_err());
    }

    #[test]
    fn keys_change_with_everything_that_matters() {
        let run = Action::Run(vec!["a".into()]);
        let base = cache_key(&["l".into()], &run, &[], None);
        assert_eq!(base, cache_key(&["l".into()], &run, &[], None));
        for other in [
            cache_key(&["m".into()], &run, &[], None),
            cache_key(&["l".into()], &Action::Run(vec!["b".into()]), &[], None),
            cache_key(&["l".into()], &run, &[("A".into(), "1".into())], None),
            cache_key(&["l".into()], &run, &[], Some("x")),
        ] {
            assert_ne!(base, other);
        }
        let dir = tempfile::tempdir().expect("a directory");
        let digest = || content_digest(dir.path(), &["a".to_owned()]).expect("digest");
        fs::create_dir(dir.path().join("a")).expect("made");
        fs::write(dir.path().join("a/f"), "1").expect("written");
        let first = digest();
        fs::write(dir.path().join("a/f"), "2").expect("written");
        let second = digest();
        fs::write(dir.path().join("a/g"), "").expect("written");
        assert!(first != second && second != digest());
        assert!(content_digest(dir.path(), &["none".to_owned()]).is_err());
    }

    proptest! {
        #[test]
        fn wild_text_never_panics(text in "(FROM a\n)?(RUN|COPY|ENV|CMD|\\PC|\n| |\"|'|\\\\|\\[){0,60}") {
            let _ = Steps::parse(&text);
        }
    }
}
