//! The floor program (`floor/floor.c`), compiled once for each run of the table.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};

use crate::{root::Root, timer::Runs};

const SOURCE: &str = include_str!("../floor/floor.c");

#[derive(Debug)]
pub(crate) struct Floor {
    program: PathBuf,
    lower: String,
    scratch: String,
}

impl Floor {
    pub(crate) fn compile(root: &Root) -> anyhow::Result<Self> {
        let source = root.scratch().join("floor.c");
        let program = root.scratch().join("floor");
        std::fs::write(&source, SOURCE)?;
        let output = Command::new("gcc")
            .args(["-O2", "-Wall", "-static", "-o"])
            .arg(&program)
            .arg(&source)
            .output()
            .context("gcc")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Self {
            program,
            lower: root.tree().display().to_string(),
            scratch: root.scratch().display().to_string(),
        })
    }

    fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.program).args(words).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && stderr.is_empty(), "floor {words:?}: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A plain process.
    pub(crate) fn spawn(&self, count: usize) -> anyhow::Result<Runs> {
        Runs::parse(&self.run(&["spawn", &count.to_string()])?)
    }

    /// A sandbox with the same walls.
    pub(crate) fn create(&self, count: usize) -> anyhow::Result<Runs> {
        Runs::parse(&self.run(&["create", &count.to_string(), &self.lower, &self.scratch])?)
    }

    /// `many` such sandboxes at once, `rounds` times.
    pub(crate) fn burst(&self, many: usize, rounds: usize) -> anyhow::Result<Runs> {
        let mut text = String::new();
        for _ in 0..rounds {
            text += &self.run(&["burst", &many.to_string(), &self.lower, &self.scratch])?;
        }
        Runs::parse(&text)
    }

    /// How many such sandboxes a second, one after another in each stream.
    pub(crate) fn rate(&self, streams: usize, seconds: u64) -> anyhow::Result<f64> {
        let (streams, seconds) = (streams.to_string(), seconds.to_string());
        let text = self.run(&["rate", &streams, &seconds, &self.lower, &self.scratch])?;
        Ok(text.trim().parse()?)
    }

    /// A process started in such a sandbox that runs already.
    pub(crate) fn enter(&self, count: usize) -> anyhow::Result<Runs> {
        let held = Held::start(self)?;
        Runs::parse(&self.run(&["enter", &count.to_string(), &held.pid])?)
    }
}

/// A sandbox that sleeps until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    child: Child,
    pub(crate) pid: String,
}

impl Held {
    pub(crate) fn start(floor: &Floor) -> anyhow::Result<Self> {
        let mut child = Command::new(&floor.program)
            .args(["hold", &floor.lower, &floor.scratch])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut pid = String::new();
        let stdout = child.stdout.take().context("it was piped")?;
        BufReader::new(stdout).read_line(&mut pid)?;
        let pid = pid.trim().to_owned();
        // It has its walls when it runs the program it was made for.
        let path = format!("/proc/{pid}/comm");
        testkit::until("the sandbox", std::time::Duration::from_secs(10), || {
            (std::fs::read_to_string(&path).ok()?.trim() == "sleep").then_some(())
        });
        Ok(Self { child, pid })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
