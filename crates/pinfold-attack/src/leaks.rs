//! What should not have come along: descriptors, environment, arguments.

use crate::{
    Attempt,
    Category::{Descriptors, Environment},
    Stop, Tried, Wall,
    raw::io,
};

fn descriptors() -> Tried {
    let mut extra = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").map_err(io)?.flatten() {
        let number: i32 = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
        // The directory being read is open too; it points to a path below /proc.
        let target = std::fs::read_link(entry.path()).map_err(io)?;
        if number > 2 && !target.starts_with("/proc/") {
            extra.push(format!("{number}:{}", target.display()));
        }
    }
    if extra.is_empty() { Err(Stop::Nothing("none open")) } else { Ok(extra.join(" ")) }
}
fn directory_descriptor() -> Tried {
    for number in 0..256 {
        let link = format!("/proc/self/fd/{number}");
        let is_dir = std::fs::metadata(&link).is_ok_and(|found| found.is_dir());
        let target = std::fs::read_link(&link).unwrap_or_default();
        if is_dir && !target.starts_with("/proc") {
            return Ok(format!("{} is open as {number}", target.display()));
        }
    }
    Err(Stop::Nothing("none open"))
}
fn stdio_is_host_terminal() -> Tried {
    for number in 0..3 {
        let target = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
        let text = target.to_string_lossy();
        if text.starts_with("/dev/tty") || text.contains("pinfold") {
            return Ok(format!("standard stream {number} is {text}"));
        }
    }
    Err(Stop::Nothing("none open"))
}
fn environment() -> Tried {
    let bad = std::env::vars().find(|(name, value)| {
        let name_bad = [
            "SSH_",
            "SUDO_",
            "AWS_",
            "GITHUB_",
            "CARGO",
            "RUST",
            "NEXTEST",
            "XDG_RUNTIME",
            "DBUS_",
            "INVOCATION_ID",
            "NOTIFY_SOCKET",
            "LD_",
            "CI",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix));
        let secret =
            ["TOKEN", "SECRET", "PASSWORD", "API_KEY"].iter().any(|word| name.contains(word));
        name_bad || secret || value.contains("pinfold/server.sock")
    });
    bad.map_or(Err(Stop::Nothing("clean")), |(name, _)| Ok(format!("{name} came along")))
}
fn arguments_of_others() -> Tried {
    for entry in std::fs::read_dir("/proc").map_err(io)?.flatten() {
        let name = entry.file_name();
        let Ok(pid) = name.to_string_lossy().parse::<u32>() else { continue };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid == 1 && line.split_whitespace().count() > 1 {
            return Ok(format!("process 1 carries arguments: {line}"));
        }
        if line.contains("server.sock") || line.contains("pinfold up") {
            return Ok(format!("process {pid} of the host: {line}"));
        }
    }
    Err(Stop::Nothing("clean"))
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "fd-open",
        category: Descriptors,
        wall: Wall::Descriptors,
        what: "find descriptors that came along",
        source: "CVE-2024-21626, leaked descriptors",
        held: &["none open"],
        body: descriptors,
    },
    Attempt {
        id: "fd-directory",
        category: Descriptors,
        wall: Wall::Descriptors,
        what: "find a directory of the host left open",
        source: "CVE-2024-21626",
        held: &["none open"],
        body: directory_descriptor,
    },
    Attempt {
        id: "fd-stdio",
        category: Descriptors,
        wall: Wall::Descriptors,
        what: "find the host's terminal as a standard stream",
        source: "TIOCSTI family",
        held: &["none open"],
        body: stdio_is_host_terminal,
    },
    Attempt {
        id: "env-host",
        category: Environment,
        wall: Wall::Environment,
        what: "find the host's environment",
        source: "PF-12",
        held: &["clean"],
        body: environment,
    },
    Attempt {
        id: "env-arguments",
        category: Environment,
        wall: Wall::PidNamespace,
        what: "find secrets in others' arguments",
        source: "proc(5), cmdline",
        held: &["clean"],
        body: arguments_of_others,
    },
];
