//! `/var` of the skeleton: the package database, and empty places for everything else.

use std::{fs, path::Path};

use super::{
    accounts::{self, Accounts},
    copy_public_file, entries,
};
use crate::{error::Result, files};

/// Directories, with their mode.
const DIRS: [(&str, u32); 28] = [
    ("backups", 0o755),
    ("cache", 0o755),
    ("cache/apt", 0o755),
    ("cache/apt/archives", 0o755),
    ("cache/apt/archives/partial", 0o700),
    ("cache/debconf", 0o755),
    ("cache/fontconfig", 0o755),
    ("cache/ldconfig", 0o700),
    ("cache/man", 0o755),
    ("lib", 0o755),
    ("lib/apt", 0o755),
    ("lib/apt/lists", 0o755),
    ("lib/apt/lists/partial", 0o700),
    ("lib/apt/mirrors", 0o755),
    ("lib/apt/mirrors/partial", 0o755),
    ("lib/dpkg", 0o755),
    ("lib/misc", 0o755),
    ("lib/pam", 0o755),
    ("lib/python", 0o755),
    ("lib/systemd", 0o755),
    ("lib/ucf", 0o755),
    ("local", 0o2775),
    ("log", 0o755),
    ("log/apt", 0o755),
    ("mail", 0o2775),
    ("opt", 0o755),
    ("spool", 0o755),
    ("tmp", 0o1777),
];

/// Parts of dpkg's database that are public on every Debian and describe what is in `/usr`.
const DPKG: [&str; 10] = [
    "alternatives",
    "arch",
    "available",
    "cmethopt",
    "diversions",
    "info",
    "parts",
    "status",
    "triggers",
    "updates",
];

/// Writes it.
pub(super) fn write(root: &Path, tree: &Path, accounts: &Accounts) -> Result<()> {
    let var = tree.join("var");
    for (name, mode) in DIRS {
        files::make_dir(&var.join(name), mode)?;
    }
    accounts::own(&var.join("local"), 0, accounts::STAFF_GID)?;
    accounts::own(&var.join("mail"), 0, accounts::MAIL_GID)?;
    // chown clears the set-group-id bit.
    files::make_dir(&var.join("local"), 0o2775)?;
    files::make_dir(&var.join("mail"), 0o2775)?;
    for name in ["cache/apt/archives/partial", "lib/apt/lists/partial"] {
        accounts::own(&var.join(name), accounts::APT_UID, 0)?;
    }
    files::make_link("/run", &var.join("run"))?;
    files::make_link("/run/lock", &var.join("lock"))?;
    files::make_link("../mail", &var.join("spool/mail"))?;

    let from = root.join("var/lib/dpkg");
    for name in DPKG {
        copy_tree(&from.join(name), &var.join("lib/dpkg").join(name), 3)?;
    }
    write_overrides(&from.join("statoverride"), &var.join("lib/dpkg/statoverride"), accounts)?;
    for name in ["lib/xml-core", "lib/sgml-base", "lib/apt/extended_states"] {
        copy_tree(&root.join("var").join(name), &var.join(name), 2)?;
    }
    Ok(())
}

/// Copies world-readable files of a shallow tree; links are left out.
fn copy_tree(source: &Path, target: &Path, depth: u32) -> Result<()> {
    let Ok(facts) = fs::symlink_metadata(source) else { return Ok(()) };
    if facts.is_file() {
        if !source.ends_with("Lock") {
            copy_public_file(source, target)?;
        }
    } else if facts.is_dir() && depth > 0 {
        files::make_dir(target, 0o755)?;
        for entry in entries(source) {
            let name = entry.file_name().expect("an entry has a name").to_owned();
            copy_tree(&entry, &target.join(name), depth - 1)?;
        }
    }
    Ok(())
}

/// dpkg stops at an override of an account it does not know, so those of this machine's own
/// accounts are left out.
fn write_overrides(source: &Path, target: &Path, accounts: &Accounts) -> Result<()> {
    let Ok(text) = files::read_bounded(source, 1 << 20) else { return Ok(()) };
    let text = String::from_utf8_lossy(&text);
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next().is_some_and(|user| accounts.users.contains(user))
                && words.next().is_some_and(|group| accounts.groups.contains(group))
        })
        .chain([""])
        .collect();
    let kept = kept.join("\n");
    files::write_file(target, kept.as_bytes(), 0o644)
}
