//! Times a program from its start to its first output and to its end.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::stats::Times;

/// Between two runs of anything that is measured alone, ours or another's, so that a run is not
/// charged for the clearing up of the one before. How many there can be a second is a part of the
/// table of its own.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}

/// To the first byte of output, and to the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    pub(crate) first: Times,
    pub(crate) end: Times,
}

impl Runs {
    /// From lines of two numbers of nanoseconds.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut first = Vec::new();
        let mut end = Vec::new();
        for line in text.lines() {
            let (a, b) =
                line.split_once(' ').with_context(|| format!("not two numbers: {line}"))?;
            first.push(Duration::from_nanos(a.parse()?));
            end.push(Duration::from_nanos(b.parse()?));
        }
        ensure!(!first.is_empty(), "nothing was measured");
        Ok(Self { first: Times::new(first), end: Times::new(end) })
    }
}

/// `time COUNT -- PROGRAM [WORD]…`: prints a line a run. A process of its own, so that a peer can
/// be timed in the mount namespace it needs without that being part of the time.
pub(crate) fn child(words: &[String]) -> anyhow::Result<()> {
    let count: usize = words.first().context("time needs a count")?.parse()?;
    ensure!(words.get(1).is_some_and(|word| word == "--"), "time COUNT -- PROGRAM");
    let program = words.get(2).context("time needs a program")?;
    for run in 0..count {
        let words: Vec<String> =
            words[3..].iter().map(|word| word.replace("{}", &run.to_string())).collect();
        pause();
        let (first, end) = one(Path::new(program), &words)?;
        println!("{} {}", first.as_nanos(), end.as_nanos());
    }
    Ok(())
}

/// One run. A program without output is timed to its end.
pub(crate) fn one(program: &Path, words: &[String]) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut buffer = [0; 64];
    let mut stdout = child.stdout.take().context("it was piped")?;
    let read = stdout.read(&mut buffer)?;
    let first = began.elapsed();
    let status = child.wait()?;
    let end = began.elapsed();
    if !status.success() {
        let mut text = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut text)?;
        }
        anyhow::bail!("{} {} failed: {}", program.display(), words.join(" "), text.trim());
    }
    Ok((if read == 0 { end } else { first }, end))
}
