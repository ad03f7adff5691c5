//! The accounts of the skeleton: Debian's fixed ids and nobody of this machine.

use std::{collections::HashSet, fmt::Write as _, os::unix::fs::chown, path::Path};

use crate::{
    error::{ImageError, Result},
    files,
};

/// Name, uid, gid, home, shell. Fixed ids of Debian's base-passwd and of apt.
const USERS: [(&str, u32, u32, &str, &str); 18] = [
    ("root", 0, 0, "/root", "/bin/bash"),
    ("daemon", 1, 1, "/usr/sbin", NOLOGIN),
    ("bin", 2, 2, "/bin", NOLOGIN),
    ("sys", 3, 3, "/dev", NOLOGIN),
    ("sync", 4, 65534, "/bin", "/bin/sync"),
    ("games", 5, 60, "/usr/games", NOLOGIN),
    ("man", 6, 12, "/var/cache/man", NOLOGIN),
    ("lp", 7, 7, "/var/spool/lpd", NOLOGIN),
    ("mail", 8, 8, "/var/mail", NOLOGIN),
    ("news", 9, 9, "/var/spool/news", NOLOGIN),
    ("uucp", 10, 10, "/var/spool/uucp", NOLOGIN),
    ("proxy", 13, 13, "/bin", NOLOGIN),
    ("www-data", 33, 33, "/var/www", NOLOGIN),
    ("backup", 34, 34, "/var/backups", NOLOGIN),
    ("list", 38, 38, "/var/list", NOLOGIN),
    ("irc", 39, 39, "/run/ircd", NOLOGIN),
    ("_apt", 42, 65534, "/nonexistent", NOLOGIN),
    ("nobody", 65534, 65534, "/nonexistent", NOLOGIN),
];

const STRINGS: &str = "a string takes all";
const NOLOGIN: &str = "/usr/sbin/nologin";

/// Group ids of Debian's base-passwd.
const GROUPS: [(&str, u32); 38] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
];

/// Group of `/etc/shadow`.
const SHADOW_GID: u32 = 42;
/// Group of `/var/mail`.
pub(super) const MAIL_GID: u32 = 8;
/// Group of `/var/local`.
pub(super) const STAFF_GID: u32 = 50;
/// Owner of apt's download directories.
pub(super) const APT_UID: u32 = 42;

/// Names that exist inside; other parts leave out what refers to anybody else.
#[derive(Debug)]
pub(super) struct Accounts {
    pub users: HashSet<&'static str>,
    pub groups: HashSet<&'static str>,
}

/// Writes passwd, group, shadow and gshadow. Every password is locked (PRIV-06).
pub(super) fn write(tree: &Path) -> Result<Accounts> {
    let etc = tree.join("etc");
    let mut texts: [String; 4] = Default::default();
    let [passwd, group, shadow, gshadow] = &mut texts;
    for (name, uid, gid, home, shell) in USERS {
        writeln!(passwd, "{name}:x:{uid}:{gid}:{name}:{home}:{shell}").expect(STRINGS);
        writeln!(shadow, "{name}:*:19000:0:99999:7:::").expect(STRINGS);
    }
    for (name, gid) in GROUPS {
        writeln!(group, "{name}:x:{gid}:").expect(STRINGS);
        writeln!(gshadow, "{name}:*::").expect(STRINGS);
    }
    files::write_file(&etc.join("passwd"), passwd.as_bytes(), 0o644)?;
    files::write_file(&etc.join("group"), group.as_bytes(), 0o644)?;
    for (name, text) in [("shadow", shadow), ("gshadow", gshadow)] {
        let path = etc.join(name);
        files::write_file(&path, text.as_bytes(), 0o640)?;
        own(&path, 0, SHADOW_GID)?;
    }
    for name in ["subuid", "subgid"] {
        files::write_file(&etc.join(name), b"", 0o644)?;
    }
    Ok(Accounts {
        users: USERS.iter().map(|(name, ..)| *name).collect(),
        groups: GROUPS.iter().map(|(name, _)| *name).collect(),
    })
}

/// Changes the owner, as root. As an ordinary user everything stays with that user.
pub(super) fn own(path: &Path, uid: u32, gid: u32) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(uid), Some(gid)).map_err(ImageError::io("change the owner of", path))?;
    }
    Ok(())
}
