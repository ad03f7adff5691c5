//! The probe's guest: one look at the walls from inside, sent to whoever connects first.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixListener,
};

use pinfold_sys::inherit;
use pinfold_types::api::{Finding, Verdict};
use rustix::{
    fs::{FileType, Mode},
    io::Errno,
    mount::MountFlags,
    net::{AddressFamily, SocketType},
    process::getpid,
};

use super::finding;

/// Configuration that makes the launcher's program a probe instead of a launcher.
pub(crate) const ROLE: &[u8] = b"pinfold-probe";

/// Looks, answers one connection and ends.
pub(crate) fn run() -> std::io::Result<()> {
    let (listener, config) = (inherit::take(3)?, inherit::take(4)?);
    let mut role = Vec::new();
    File::from(config).take(64).read_to_end(&mut role)?;
    if role != ROLE {
        return Err(std::io::Error::other("not started as a probe"));
    }
    let findings = look();
    let (mut stream, _) = UnixListener::from(listener).accept()?;
    stream.write_all(&serde_json::to_vec(&findings)?)?;
    stream.shutdown(Shutdown::Both)
}

fn wall(check: &str, stands: bool, detail: impl Into<String>) -> Finding {
    let mut found =
        finding("isolation", check, if stands { Verdict::Ok } else { Verdict::Missing }, detail);
    if !stands {
        found.mend = Some(
            "this wall did not hold in a real try: do not run workspaces here; \
                           report it with `pinfold doctor --json`"
                .into(),
        );
    }
    found
}

/// A try that must be refused with this errno.
fn refused<T>(check: &str, tried: &Result<T, Errno>, wanted: &[Errno]) -> Finding {
    match tried {
        Ok(_) => wall(check, false, "it went through"),
        Err(errno) if wanted.contains(errno) => wall(check, true, format!("refused: {errno}")),
        Err(errno) => wall(check, false, format!("refused by accident: {errno}")),
    }
}

fn look() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key));
        found.unwrap_or_default().trim().to_owned()
    };
    let first = getpid().as_raw_nonzero().get() == 1;
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let host_root = ids.split_whitespace().nth(1) == Some("0");
    let bounding = u64::from_str_radix(&field("CapBnd:"), 16).unwrap_or(u64::MAX);
    // SYS_MODULE, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN.
    let forbidden = [16, 12, 13, 19, 21].into_iter().filter(|bit| bounding & (1 << bit) != 0);
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let interfaces: Vec<&str> = interfaces
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
    let node = rustix::fs::mknodat(
        rustix::fs::CWD,
        "/tmp/disk",
        FileType::BlockDevice,
        Mode::from_raw_mode(0o600),
        rustix::fs::makedev(8, 0),
    );
    vec![
        wall("pid namespace", first, format!("the guest is process {}", getpid().as_raw_nonzero())),
        wall("id mapping", !host_root, ids.split_whitespace().collect::<Vec<_>>().join(" ")),
        wall("network namespace", interfaces == ["lo"], interfaces.join(" ")),
        wall("overlay root", root.contains(" - overlay "), "written in a user namespace"),
        wall("capabilities", forbidden.count() == 0, format!("bounding set {}", field("CapBnd:"))),
        wall("no_new_privs", field("NoNewPrivs:") == "1", field("NoNewPrivs:")),
        wall("seccomp", field("Seccomp:") == "2", format!("mode {}", field("Seccomp:"))),
        refused(
            "seccomp: raw sockets",
            &rustix::net::socket(AddressFamily::INET, SocketType::RAW, None),
            &[Errno::PERM],
        ),
        refused(
            "seccomp: vsock",
            &rustix::net::socket(AddressFamily::from_raw(40), SocketType::STREAM, None),
            &[Errno::AFNOSUPPORT],
        ),
        refused(
            "mounting",
            &rustix::mount::mount("none", "/run", "tmpfs", MountFlags::empty(), None),
            &[Errno::PERM],
        ),
        refused("device nodes", &node, &[Errno::PERM, Errno::ACCESS]),
        refused(
            "kernel controls",
            &rustix::fs::open(
                "/proc/sys/kernel/core_pattern",
                rustix::fs::OFlags::WRONLY,
                Mode::empty(),
            ),
            &[Errno::ACCESS, Errno::PERM, Errno::ROFS],
        ),
    ]
}
