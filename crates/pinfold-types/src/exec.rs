//! Running commands in a workspace.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, ExecId, limits, limits::LimitKind, name::excerpt, schema, unique};

/// A terminal's size in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TtySize {
    /// Columns, 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub cols: u16,
    /// Rows, 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub rows: u16,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Program and arguments; the program is looked up in `PATH` inside.
    Argv(#[schemars(schema_with = "schema::argv")] Vec<String>),
    /// A line for `/bin/sh -c`.
    Shell(
        #[schemars(regex(pattern = schema::NO_NUL), length(min = 1, max = limits::MAX_ARGS_BYTES))]
        String,
    ),
}

/// One command to run. Absent fields take the workspace's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// What to run.
    pub command: Command,
    /// Directory inside; must exist. Default: the image's, else the user's home, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::ABSOLUTE_PATH), length(min = 1, max = limits::MAX_PATH_BYTES))]
    pub cwd: Option<String>,
    /// Added to the workspace's environment. Names on the block-list are refused (VM-05).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "unique::map")]
    #[schemars(schema_with = "schema::env")]
    pub env: BTreeMap<String, String>,
    /// User name or number, `user[:group]`, from the workspace's own `/etc/passwd`. Default root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::USER), length(min = 1, max = 128))]
    pub user: Option<String>,
    /// A terminal of this size instead of pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySize>,
    /// Whether standard input is open. Without, it reads end of file.
    #[serde(default)]
    pub stdin: bool,
    /// The whole process tree is killed after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_TIMEOUT_MS))]
    pub timeout_ms: Option<u64>,
    /// Keep running when no stream is attached: output that nobody reads overwrites the oldest
    /// of the replay buffer instead of blocking.
    #[serde(default)]
    pub background: bool,
}

impl ExecSpec {
    /// A plain command without terminal or input.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: Command::Argv(argv.into_iter().map(Into::into).collect()),
            cwd: None,
            env: BTreeMap::new(),
            user: None,
            tty: None,
            stdin: false,
            timeout_ms: None,
            background: false,
        }
    }

    /// Refuses what no workspace could run: NUL bytes, too many or too long arguments,
    /// environment names that are malformed or on the block-list, wild sizes.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::new(ErrorCode::InvalidArgument, why));
        let words: Vec<&str> = match &self.command {
            Command::Argv(words) => words.iter().map(String::as_str).collect(),
            Command::Shell(line) => vec![line.as_str()],
        };
        if words.first().is_none_or(|first| first.is_empty()) {
            return refuse("the command is empty".into());
        }
        if words.len() > limits::MAX_ARGS {
            return refuse(format!("the command has more than {} arguments", limits::MAX_ARGS));
        }
        if words.iter().map(|word| word.len() + 1).sum::<usize>() > limits::MAX_ARGS_BYTES {
            return refuse(format!("the command is longer than {} bytes", limits::MAX_ARGS_BYTES));
        }
        if words.iter().any(|word| word.contains('\0')) {
            return refuse("the command contains a NUL byte".into());
        }
        check_env(&self.env)?;
        if let Some(cwd) = &self.cwd {
            check_path(cwd)?;
        }
        if let Some(user) = &self.user
            && (user.is_empty()
                || user.len() > 128
                || user.bytes().any(|b| b.is_ascii_control() || b == b'/'))
        {
            return refuse(format!("{:?} is not a user", excerpt(user)));
        }
        if let Some(size) = self.tty {
            check_tty(size)?;
        }
        if self.timeout_ms.is_some_and(|ms| ms == 0 || ms > limits::MAX_TIMEOUT_MS) {
            return refuse(format!("timeout_ms must be 1 to {} (30 days)", limits::MAX_TIMEOUT_MS));
        }
        Ok(())
    }
}

/// Refuses sizes that no terminal has.
pub fn check_tty(size: TtySize) -> Result<(), Error> {
    let fine = 1..=10_000;
    if fine.contains(&size.cols) && fine.contains(&size.rows) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("a terminal of {}x{} is outside 1 to 10000 cells", size.cols, size.rows),
    ))
}

/// A path inside a workspace: absolute, no NUL, at most `PATH_MAX`. `..` is resolved by the kernel
/// inside the workspace's own root, so it needs no rule here.
pub fn check_path(path: &str) -> Result<(), Error> {
    let refuse = |why: &str| {
        Err(Error::new(
            ErrorCode::InvalidPath,
            format!("{:?} is not a usable path: {why}", excerpt(path)),
        )
        .hint("give an absolute path inside the workspace"))
    };
    match path {
        "" => refuse("it is empty"),
        path if path.len() > limits::MAX_PATH_BYTES => refuse("it is longer than 4095 bytes"),
        path if path.contains('\0') => refuse("it contains a NUL byte"),
        path if !path.starts_with('/') => refuse("it does not start with /"),
        _ => Ok(()),
    }
}

/// Variables that change how a program is loaded or a shell starts before its first line. The one
/// block-list for every way to start a process (VM-05).
pub const BLOCKED_ENV: &[&str] = &["IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4"];
/// Prefixes of blocked variables: the dynamic loader's and exported shell functions.
pub const BLOCKED_ENV_PREFIXES: &[&str] = &["LD_", "BASH_FUNC_", "GLIBC_TUNABLES", "PINFOLD_"];

/// Checks names, the block-list, and size.
pub fn check_env(env: &BTreeMap<String, String>) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(ErrorCode::InvalidArgument, why));
    if env.len() > limits::MAX_ENV_VARS {
        return refuse(format!("more than {} environment variables", limits::MAX_ENV_VARS));
    }
    let mut total = 0;
    for (name, value) in env {
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return refuse(format!(
                "{:?} is not an environment variable name: use A-Z a-z 0-9 _ and no leading digit",
                excerpt(name)
            ));
        }
        if BLOCKED_ENV.contains(&name.as_str())
            || BLOCKED_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        {
            return refuse(format!(
                "the environment variable {name} is not allowed: it changes how programs load"
            ));
        }
        if value.contains('\0') {
            return refuse(format!("the value of {name} contains a NUL byte"));
        }
        total += name.len() + value.len() + 2;
    }
    if total > limits::MAX_ENV_BYTES {
        return refuse(format!("the environment is larger than {} bytes", limits::MAX_ENV_BYTES));
    }
    Ok(())
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It returned an exit code.
    Exited,
    /// A signal ended it.
    Signaled,
    /// Its time limit was reached; the whole tree was killed.
    TimedOut,
    /// The kernel killed it, or one of its children, for memory.
    OutOfMemory,
    /// The workspace stopped under it.
    WorkspaceStopped,
    /// It could not be started; see `error`.
    NotStarted,
}

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecResult {
    /// Which.
    pub exec_id: ExecId,
    /// Why it ended.
    pub reason: ExitReason,
    /// Exit code 0 to 255, when it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal number, when one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Limits that were hit while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits_hit: Vec<LimitKind>,
    /// Wall time.
    pub duration_ms: u64,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// Why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

impl ExecResult {
    /// The code a shell would give: the exit code, 128 + signal, 124 on a time limit, 125 when it
    /// could not be started (126 not executable, 127 not found).
    pub fn shell_code(&self) -> u8 {
        let low = |code: i32| u8::try_from(code & 0xff).unwrap_or(125);
        match (self.reason, self.exit_code, self.signal) {
            (ExitReason::TimedOut, _, _) => 124,
            (ExitReason::NotStarted, code, _) => code.map_or(125, low),
            (_, Some(code), _) => low(code),
            (_, None, Some(signal)) => low(128 + signal),
            _ => 125,
        }
    }
}

/// A command known to a workspace, running or ended a short while ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecInfo {
    /// Which.
    pub id: ExecId,
    /// As it was asked for, environment left out.
    pub command: Command,
    /// Process id inside the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it was started in the background.
    pub background: bool,
    /// When it was started, RFC 3339.
    pub started_at: jiff::Timestamp,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ExecResult>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_list_holds_for_every_variable_that_changes_loading() {
        for bad in ["LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "IFS", "ENV", "GLIBC_TUNABLES"] {
            let env = BTreeMap::from([(bad.to_owned(), "x".to_owned())]);
            assert!(check_env(&env).is_err(), "{bad}");
        }
        for bad in ["", "1A", "A=B", "A B", "É"] {
            let env = BTreeMap::from([(bad.to_owned(), "x".to_owned())]);
            assert!(check_env(&env).is_err(), "{bad}");
        }
        let env = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        assert!(check_env(&env).is_ok());
    }

    #[test]
    fn exit_codes_are_a_shells() {
        let mut result = ExecResult {
            exec_id: ExecId::generate(),
            reason: ExitReason::Exited,
            exit_code: Some(3),
            signal: None,
            limits_hit: vec![],
            duration_ms: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            error: None,
        };
        assert_eq!(result.shell_code(), 3);
        (result.exit_code, result.signal, result.reason) = (None, Some(9), ExitReason::Signaled);
        assert_eq!(result.shell_code(), 137);
        result.reason = ExitReason::TimedOut;
        assert_eq!(result.shell_code(), 124);
    }
}
