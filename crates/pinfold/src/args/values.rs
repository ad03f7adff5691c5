//! How single values are written on the command line.

use std::{fmt, str::FromStr};

use clap::Args;
use pinfold_types::{
    ByteSize, Error, ErrorCode, ExecId, SnapshotId, SnapshotName, WorkspaceId, WorkspaceName,
    limits::{LimitKind, ResourceLimits},
    name::excerpt,
};

use crate::output::human::limit;

fn refuse(message: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// A workspace by id or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkspaceRef(String);

impl FromStr for WorkspaceRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.starts_with(concat_prefix(WorkspaceId::PREFIX).as_str()) {
            text.parse::<WorkspaceId>()?;
        } else {
            text.parse::<WorkspaceName>()?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for WorkspaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn concat_prefix(prefix: &str) -> String {
    format!("{prefix}_")
}

/// A snapshot: `snap_…`, or `WORKSPACE:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotRef {
    /// By id.
    Id(SnapshotId),
    /// By name, among those of a workspace.
    Named(WorkspaceRef, SnapshotName),
}

impl FromStr for SnapshotRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((workspace, name)) = text.split_once(':') {
            return Ok(Self::Named(workspace.parse()?, name.parse()?));
        }
        text.parse().map(Self::Id).map_err(|_| {
            Error::new(
                ErrorCode::InvalidName,
                format!("{:?} is neither a snapshot's id nor WORKSPACE:NAME", excerpt(text)),
            )
        })
    }
}

/// What to fork: a workspace, or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForkSource {
    /// A workspace as it is now.
    Workspace(WorkspaceRef),
    /// A snapshot.
    Snapshot(SnapshotRef),
}

impl FromStr for ForkSource {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') || text.starts_with(concat_prefix(SnapshotId::PREFIX).as_str()) {
            return text.parse().map(Self::Snapshot);
        }
        text.parse().map(Self::Workspace)
    }
}

/// A command by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExecRef(pub(crate) ExecId);

impl FromStr for ExecRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self)
    }
}

/// Milliseconds, written `90s`, `1h30m`, `500ms`, `2d`; a plain number means seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) u64);

impl FromStr for Millis {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            refuse(format!("{:?} is not a duration: write 90s, 5m, 1h30m or 500ms", excerpt(text)))
        };
        if let Ok(seconds) = text.parse::<u64>() {
            return seconds.checked_mul(1000).map(Self).ok_or_else(bad);
        }
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, after) = rest.split_at(digits);
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let factor = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(bad()),
            };
            let number: u64 = number.parse().map_err(|_| bad())?;
            total =
                number.checked_mul(factor).and_then(|ms| total.checked_add(ms)).ok_or_else(bad)?;
            rest = after;
        }
        if text.is_empty() { Err(bad()) } else { Ok(Self(total)) }
    }
}

/// A TCP address to listen on, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<std::net::SocketAddr>);

impl FromStr for Listen {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| {
            refuse(format!(
                "{:?} is not an address with a port: write 127.0.0.1:7070, [::1]:7070 or none",
                excerpt(text)
            ))
        })
    }
}

/// Thousandths of a CPU, written `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuMillis(pub(crate) u64);

impl FromStr for CpuMillis {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || refuse(format!("{:?} is not a number of CPUs: write 2 or 0.5", excerpt(text)));
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || !digits(whole)
            || !digits(fraction)
            || fraction.len() > 3
            || (text.contains('.') && fraction.is_empty())
        {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let thousandths: u64 = format!("{fraction:0<3}").parse().map_err(|_| bad())?;
        whole.checked_mul(1000).and_then(|w| w.checked_add(thousandths)).map(Self).ok_or_else(bad)
    }
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair(pub(crate) String, pub(crate) String);

impl FromStr for Pair {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self(name.to_owned(), value.to_owned())),
            _ => Err(refuse(format!("{:?} is not of the form NAME=VALUE", excerpt(text)))),
        }
    }
}

/// `NAME=VALUE`, or `NAME` to take the value from this command's own environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvVar(pub(crate) String, pub(crate) String);

impl FromStr for EnvVar {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains('=') {
            let Pair(name, value) = text.parse()?;
            return Ok(Self(name, value));
        }
        match std::env::var(text) {
            Ok(value) => Ok(Self(text.to_owned(), value)),
            Err(_) => Err(refuse(format!(
                "{:?} is not of the form NAME=VALUE, and no such variable is set here",
                excerpt(text)
            ))),
        }
    }
}

/// Limits as options.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LimitArgs {
    /// CPUs it may use, such as 2 or 0.5
    #[arg(long, allow_hyphen_values = true, value_name = "N", help_heading = "Limits")]
    cpus: Option<CpuMillis>,
    /// CPU share when the machine is busy, 1 to 10000 (100 is usual)
    #[arg(long, allow_hyphen_values = true, value_name = "WEIGHT", help_heading = "Limits")]
    cpu_weight: Option<u64>,
    /// Memory of all processes, such as 512MiB
    #[arg(long, short, allow_hyphen_values = true, value_name = "SIZE", help_heading = "Limits")]
    memory: Option<ByteSize>,
    /// Swap beyond memory
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", help_heading = "Limits")]
    swap: Option<ByteSize>,
    /// Bytes on its disk
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", help_heading = "Limits")]
    disk: Option<ByteSize>,
    /// Files and directories on its disk
    #[arg(long, allow_hyphen_values = true, value_name = "N", help_heading = "Limits")]
    inodes: Option<u64>,
    /// Processes and threads
    #[arg(long, allow_hyphen_values = true, value_name = "N", help_heading = "Limits")]
    pids: Option<u64>,
    /// Open files of one process
    #[arg(long, allow_hyphen_values = true, value_name = "N", help_heading = "Limits")]
    open_files: Option<u64>,
    /// Output of all commands together, bytes a second
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", help_heading = "Limits")]
    output_rate: Option<ByteSize>,
}

impl LimitArgs {
    /// As the API takes them, checked against the published ranges.
    pub(crate) fn limits(&self) -> Result<ResourceLimits, Error> {
        let limits = ResourceLimits {
            memory_bytes: self.memory.map(|size| size.0),
            swap_bytes: self.swap.map(|size| size.0),
            cpu_millis: self.cpus.map(|cpus| cpus.0),
            cpu_weight: self.cpu_weight,
            pids: self.pids,
            disk_bytes: self.disk.map(|size| size.0),
            disk_inodes: self.inodes,
            open_files: self.open_files,
            output_bytes_per_second: self.output_rate.map(|size| size.0),
        };
        for kind in LimitKind::ALL {
            let Some(value) = limits.get(*kind) else { continue };
            let (least, most) = kind.range();
            let (end, bound) = match value {
                value if value < least => ("below the least", least),
                value if value > most => ("above the most", most),
                _ => continue,
            };
            return Err(refuse(format!(
                "{} {} is {end}, {}",
                option(*kind),
                limit(*kind, value),
                limit(*kind, bound)
            )));
        }
        limits.check()?;
        Ok(limits)
    }
}

/// The option that sets a limit.
const fn option(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Memory => "--memory",
        LimitKind::Swap => "--swap",
        LimitKind::Cpu => "--cpus",
        LimitKind::CpuWeight => "--cpu-weight",
        LimitKind::Pids => "--pids",
        LimitKind::Disk => "--disk",
        LimitKind::Inodes => "--inodes",
        LimitKind::OpenFiles => "--open-files",
        LimitKind::Output => "--output-rate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("1", 1000),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("2d", 172_800_000),
            ("1m1s1ms", 61_001),
        ] {
            assert_eq!(text.parse::<Millis>().expect(text).0, ms, "{text}");
        }
        for bad in ["", "s", "1x", "-1", "1.5s", "1 s", "99999999999999999999", "9999999999999999d"]
        {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_refused_in_the_words_of_the_command_line() {
        let said = |args: LimitArgs| args.limits().expect_err("it is outside").message;
        let memory = |bytes| LimitArgs { memory: Some(ByteSize(bytes)), ..Default::default() };
        assert_eq!(said(memory(5)), "--memory 5 B is below the least, 16.0 MiB");
        assert_eq!(said(memory(1 << 47)), "--memory 128 TiB is above the most, 64.0 TiB");
        let cpus = LimitArgs { cpus: Some(CpuMillis(0)), ..Default::default() };
        assert_eq!(said(cpus), "--cpus 0.000 CPUs is below the least, 0.010 CPUs");
    }

    #[test]
    fn cpus_are_thousandths() {
        for (text, millis) in [("1", 1000), ("0.5", 500), ("1.25", 1250), ("12.125", 12_125)] {
            assert_eq!(text.parse::<CpuMillis>().expect(text).0, millis);
        }
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "0.1234", "nan", "99999999999999999999"] {
            assert!(bad.parse::<CpuMillis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn references_are_ids_or_names_and_nothing_else() {
        assert!("fix-42".parse::<WorkspaceRef>().is_ok());
        assert!(WorkspaceId::generate().to_string().parse::<WorkspaceRef>().is_ok());
        for bad in ["", "ws_", "ws_1", "a/b", "..", "a b", "a?b", "a%2fb", "snap_x"] {
            assert!(bad.parse::<WorkspaceRef>().is_err(), "{bad}");
        }
        assert!("web:before".parse::<SnapshotRef>().is_ok());
        for bad in ["", "x", ":", "a:", ":b", "a:b:c", "snap_1"] {
            assert!(bad.parse::<SnapshotRef>().is_err(), "{bad}");
        }
    }
}
