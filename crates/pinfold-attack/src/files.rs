//! Looking for what belongs to the host in the file tree.

use crate::{Attempt, Category::Paths, Stop, Tried, Wall, raw::io};

fn first_existing(paths: &[&str]) -> Tried {
    paths
        .iter()
        .find(|path| std::fs::symlink_metadata(path).is_ok())
        .map_or(Err(Stop::Nothing("none visible")), |path| Ok(format!("{path} is visible")))
}

fn host_keys() -> Tried {
    first_existing(&[
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_rsa_key",
        "/root/.ssh/id_ed25519",
        "/root/.ssh/id_rsa",
        "/etc/ssl/private/ssl-cert-snakeoil.key",
    ])
}
fn host_identity() -> Tried {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if text.trim().len() == 32 && text.trim().bytes().any(|b| b != b'0') {
        return Ok("a machine id is readable".into());
    }
    first_existing(&["/var/lib/dbus/machine-id", "/var/lib/cloud/instance", "/etc/hostid"])
}
fn shadow() -> Tried {
    let text = std::fs::read_to_string("/etc/shadow").map_err(io)?;
    let usable = text.lines().find(|line| {
        line.split(':').nth(1).is_some_and(|hash| hash.is_empty() || hash.starts_with('$'))
    });
    usable.map_or(Err(Stop::Nothing("locked")), |line| {
        Ok(format!("{} has a usable password", line.split(':').next().unwrap_or_default()))
    })
}
fn user_data() -> Tried {
    for dir in ["/home", "/root", "/var/mail", "/var/spool/cron", "/var/backups", "/srv"] {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let usual = [".bashrc", ".profile", ".cache", ".local", ".config", "agent"];
            let empty =
                std::fs::read_dir(entry.path()).is_ok_and(|mut inner| inner.next().is_none());
            if !usual.contains(&name.as_ref()) && !empty {
                return Ok(format!("{dir}/{name} is visible"));
            }
        }
    }
    Err(Stop::Nothing("none visible"))
}
fn host_logs() -> Tried {
    first_existing(&[
        "/var/log/syslog",
        "/var/log/auth.log",
        "/var/log/journal",
        "/var/log/dpkg.log",
        "/var/log/wtmp",
    ])
}
fn pinfold_home() -> Tried {
    first_existing(&["/var/lib/pinfold", "/root/.local/share/pinfold"])
}
fn cloud_credentials() -> Tried {
    first_existing(&[
        "/root/.aws",
        "/root/.config/gcloud",
        "/root/.kube",
        "/root/.docker",
        "/root/.netrc",
        "/root/.npmrc",
        "/root/.pypirc",
        "/root/.git-credentials",
        "/etc/apt/auth.conf",
        "/etc/NetworkManager",
    ])
}
fn write_usr_through() -> Tried {
    // A write to /usr must land in the own layer: OVERLAYFS_SUPER_MAGIC of statfs(2).
    const OVERLAY: i64 = 0x794c_7630;
    let path = "/usr/attack-probe";
    std::fs::write(path, "x").map_err(io)?;
    let name = crate::raw::c(path);
    // SAFETY: plain numbers; all zero is valid.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a live C string and a live out-parameter.
    let asked = unsafe { libc::statfs(name.as_ptr(), &raw mut found) };
    std::fs::remove_file(path).map_err(io)?;
    crate::raw::check(asked)?;
    if found.f_type == OVERLAY {
        Err(Stop::Nothing("own layer"))
    } else {
        Ok("the write went to the host's /usr".into())
    }
}
fn setuid_on_host() -> Tried {
    // A set-uid file of ours must not be one of the host's root: its owner outside is mapped.
    let map = std::fs::read_to_string("/proc/self/uid_map").map_err(io)?;
    let outside: u64 = map.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    if outside == 0 {
        Ok("our root's files are the host root's".into())
    } else {
        Err(Stop::Nothing("mapped away"))
    }
}
fn symlink_bait() -> Tried {
    // Left for host-side copies to follow: the tests of `pinfold cp` look for the consequence.
    let bait = "/tmp/attack-bait";
    let _ = std::fs::remove_file(bait);
    std::os::unix::fs::symlink("/etc/shadow", bait).map_err(io)?;
    let through = std::fs::read_to_string(bait).map_err(io)?;
    let hashes = through.lines().any(|line| line.contains(":$"));
    if hashes {
        Ok("the link reaches password hashes".into())
    } else {
        Err(Stop::Nothing("locked"))
    }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "file-host-keys",
        category: Paths,
        wall: Wall::Root,
        what: "find the host's private keys",
        source: "PF-12",
        held: &["none visible"],
        body: host_keys,
    },
    Attempt {
        id: "file-host-identity",
        category: Paths,
        wall: Wall::Root,
        what: "learn the machine's identity",
        source: "machine-id(5)",
        held: &["none visible"],
        body: host_identity,
    },
    Attempt {
        id: "file-shadow",
        category: Paths,
        wall: Wall::Root,
        what: "find a usable password",
        source: "PRIV-06; CVE-2019-5021",
        held: &["locked", "ENOENT", "EACCES"],
        body: shadow,
    },
    Attempt {
        id: "file-user-data",
        category: Paths,
        wall: Wall::Root,
        what: "find users' data",
        source: "PF-12",
        held: &["none visible"],
        body: user_data,
    },
    Attempt {
        id: "file-host-logs",
        category: Paths,
        wall: Wall::Root,
        what: "find the host's logs",
        source: "PF-12",
        held: &["none visible"],
        body: host_logs,
    },
    Attempt {
        id: "file-pinfold-home",
        category: Paths,
        wall: Wall::Root,
        what: "find Pinfold's own state",
        source: "PF-12",
        held: &["none visible"],
        body: pinfold_home,
    },
    Attempt {
        id: "file-credentials",
        category: Paths,
        wall: Wall::Root,
        what: "find tools' stored credentials",
        source: "PF-12",
        held: &["none visible"],
        body: cloud_credentials,
    },
    Attempt {
        id: "file-write-usr",
        category: Paths,
        wall: Wall::Root,
        what: "write through to the host's /usr",
        source: "overlay documentation",
        held: &["own layer", "EROFS", "EACCES"],
        body: write_usr_through,
    },
    Attempt {
        id: "file-setuid-host",
        category: Paths,
        wall: Wall::UserNamespace,
        what: "leave a set-uid file of the host's root",
        source: "CVE-2019-6724 and kin",
        held: &["mapped away"],
        body: setuid_on_host,
    },
    Attempt {
        id: "file-symlink-bait",
        category: Paths,
        wall: Wall::Root,
        what: "leave a link for host-side copies",
        source: "CVE-2018-15664, CVE-2019-14271",
        held: &["locked", "ENOENT", "EACCES"],
        body: symlink_bait,
    },
];
