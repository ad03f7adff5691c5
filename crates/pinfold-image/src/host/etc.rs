//! `/etc` of the skeleton.

use std::{
    collections::HashSet,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{copy_public_file, dpkg::Database, entries, holds_key, texts};
use crate::{
    error::{ImageError, Result},
    files,
};

/// Never taken, not even as a package shipped it: they steer services of a whole machine, or
/// are generated below.
const REFUSED: [&str; 28] = [
    "NetworkManager",
    "cni",
    "containers",
    "cron.d",
    "cron.daily",
    "cron.hourly",
    "cron.monthly",
    "cron.weekly",
    "cron.yearly",
    "crontab",
    "dhcp",
    "environment",
    "fstab",
    "hostname",
    "hosts",
    "machine-id",
    "network",
    "netplan",
    "nftables.conf",
    "nsswitch.conf",
    "openvpn",
    "postfix",
    "ppp",
    "resolv.conf",
    "ssl/private",
    "sudoers",
    "sudoers.d",
    "wpa_supplicant",
];

/// Trees whose world-readable files are copied, wherever they came from: trust store, linker,
/// interpreters.
const COPIED: [&str; 13] = [
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fedora-release",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "lsb-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "redhat-release",
    "ssl/certs",
];

/// Trees whose links into `/usr`, or to something copied, are kept.
const LINKED: [&str; 14] = [
    "alternatives",
    "dpkg",
    "fonts",
    "glvnd",
    "locale.alias",
    "maven",
    "os-release",
    "perl",
    "pki",
    "rmt",
    "sgml",
    "ssl",
    "vim",
    "xml",
];

/// The same for directories with a version in their name.
const LINKED_PREFIXES: [&str; 2] = ["java-", "python3"];

/// Writes everything in `etc` except accounts and apt's sources.
pub(super) fn write(root: &Path, tree: &Path, database: &Database) -> Result<()> {
    for file in database.pristine(root) {
        let (name, content, mode) = file?;
        let Some(inside) = name.strip_prefix("/etc/") else { continue };
        if refused(inside) || holds_key(&content) {
            continue;
        }
        let target = tree.join("etc").join(inside);
        files::make_dirs(tree, target.parent().expect("below etc"))?;
        files::write_file(&target, &content, mode)?;
    }
    let mut links = Vec::new();
    for name in COPIED {
        copy(&root.join("etc").join(name), &tree.join("etc").join(name), tree, &mut links)?;
    }
    for entry in entries(&root.join("etc")) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LINKED.contains(&name.as_str()) || LINKED_PREFIXES.iter().any(|p| name.starts_with(p)) {
            collect_links(&entry, &mut links);
        }
    }
    keep_links(root, tree, links)?;
    texts::write(root, tree)
}

fn refused(inside: &str) -> bool {
    let path = Path::new(inside);
    path.components().any(|part| !matches!(part, Component::Normal(_)))
        || REFUSED.iter().any(|prefix| path.starts_with(prefix))
}

/// Copies a file or tree; links are remembered for later.
fn copy(source: &Path, target: &Path, tree: &Path, links: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(facts) = fs::symlink_metadata(source) else { return Ok(()) };
    if facts.is_symlink() {
        links.push(source.to_path_buf());
    } else if facts.is_dir() {
        for entry in entries(source) {
            let name = entry.file_name().expect("an entry has a name").to_owned();
            copy(&entry, &target.join(name), tree, links)?;
        }
    } else if facts.is_file() && !is_there(target) && !is_site_certificate(source) {
        files::make_dirs(tree, target.parent().expect("below etc"))?;
        copy_public_file(source, target)?;
    }
    Ok(())
}

/// A self-made certificate names this machine: only the bundle and Java's store are plain files
/// in a Debian trust store, everything else is a link to a package's certificate.
fn is_site_certificate(source: &Path) -> bool {
    let name = source.file_name().unwrap_or_default();
    let in_certs = source.parent().is_some_and(|dir| dir.ends_with("etc/ssl/certs"));
    in_certs && !["ca-certificates.crt", "ca-bundle.crt"].iter().any(|known| name == *known)
}

fn collect_links(path: &Path, links: &mut Vec<PathBuf>) {
    let Ok(facts) = fs::symlink_metadata(path) else { return };
    if facts.is_symlink() {
        links.push(path.to_path_buf());
    } else if facts.is_dir() {
        for entry in entries(path) {
            collect_links(&entry, links);
        }
    }
}

/// Keeps links that lead into `/usr`, or to something that is in the skeleton by now. A link to
/// a kept link is kept too, so the list is gone through until nothing changes.
fn keep_links(root: &Path, tree: &Path, links: Vec<PathBuf>) -> Result<()> {
    let mut waiting: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut seen = HashSet::new();
    for link in links {
        let Ok(inside) = link.strip_prefix(root) else { continue };
        if !seen.insert(inside.to_path_buf()) || is_there(&tree.join(inside)) {
            continue;
        }
        let target = fs::read_link(&link).map_err(ImageError::io("read", &link))?;
        waiting.push((inside.to_path_buf(), target));
    }
    loop {
        let before = waiting.len();
        let mut later = Vec::new();
        for (inside, target) in waiting {
            let from = inside.parent().unwrap_or(Path::new(""));
            let Some(leads_to) = normal(from, &target) else { continue };
            let usr = leads_to.starts_with("usr") && !leads_to.starts_with("usr/local/etc");
            if usr || is_there(&tree.join(&leads_to)) {
                let path = tree.join(&inside);
                files::make_dirs(tree, path.parent().expect("below etc"))?;
                files::make_link(&target, &path)?;
            } else {
                later.push((inside, target));
            }
        }
        if later.len() == before || later.is_empty() {
            return Ok(());
        }
        waiting = later;
    }
}

/// Where a link leads, as a path below the root without `..`; none when it climbs out.
fn normal(from: &Path, target: &Path) -> Option<PathBuf> {
    let mut at = if target.is_absolute() { PathBuf::new() } else { from.to_path_buf() };
    for part in target.components() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir => {
                if !at.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::CurDir => {}
            Component::Prefix(_) => return None,
        }
    }
    Some(at)
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_on_paper_only() {
        let at = |from: &str, to: &str| normal(Path::new(from), Path::new(to));
        assert_eq!(at("etc/ssl", "../../usr/x"), Some("usr/x".into()));
        assert_eq!(at("etc", "/usr/./lib"), Some("usr/lib".into()));
        assert_eq!(at("etc", "../../../root"), None);
        assert!(refused("cron.d/x") && refused("ssl/private/k") && refused("../x"));
        assert!(!refused("cronies"));
    }
}
