//! Running the program.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// The program with this home, not started.
pub(crate) fn pinfold(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinfold"));
    command.env("PINFOLD_HOME", home).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs it with these words.
pub(crate) fn run(home: &Path, words: &[&str]) -> Said {
    Said::of(&pinfold(home).args(words).output().expect("it starts"))
}

/// Runs it with these words and this input.
pub(crate) fn run_with(home: &Path, words: &[&str], input: &[u8]) -> Said {
    let mut child = pinfold(home)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        let _early = stdin.write_all(&input);
    });
    let said = Said::of(&child.wait_with_output().expect("it ends"));
    feeder.join().expect("the feeder ends");
    said
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output, where all went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}
