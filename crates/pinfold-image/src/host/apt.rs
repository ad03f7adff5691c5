//! apt's sources: the distribution's public archives, without anything the site added.

use std::{fs, path::Path};

use super::entries;
use crate::{error::Result, files};

/// Archives that everybody knows. Suffixes, with their leading dot, cover country mirrors.
const KNOWN: [&str; 12] = [
    "deb.debian.org",
    "security.debian.org",
    "ftp.debian.org",
    "archive.debian.org",
    "snapshot.debian.org",
    "httpredir.debian.org",
    "cdn-fastly.deb.debian.org",
    "archive.ubuntu.com",
    "security.ubuntu.com",
    "ports.ubuntu.com",
    "old-releases.ubuntu.com",
    ".archive.ubuntu.com",
];

/// The keys of Debian's archives.
pub(crate) const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Longest source list read.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// One archive, in the words of sources.list(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub uri: String,
    pub suites: Vec<String>,
    pub components: Vec<String>,
    pub signed_by: Option<String>,
}

/// Writes `etc/apt/sources.list.d/base.sources`.
pub(super) fn write(root: &Path, tree: &Path) -> Result<()> {
    if !root.join("var/lib/dpkg/status").is_file() {
        return Ok(());
    }
    let apt = tree.join("etc/apt");
    for dir in ["sources.list.d", "apt.conf.d", "preferences.d", "trusted.gpg.d", "keyrings"] {
        files::make_dirs(tree, &apt.join(dir))?;
    }
    files::make_dir(&apt.join("auth.conf.d"), 0o755)?;
    let sources = public_sources(root);
    let text: String = sources.iter().map(render).collect();
    files::write_file(&apt.join("sources.list.d/base.sources"), text.as_bytes(), 0o644)
}

fn render(source: &Source) -> String {
    let mut lines = vec![
        "Types: deb".to_owned(),
        format!("URIs: {}", source.uri),
        format!("Suites: {}", source.suites.join(" ")),
    ];
    if !source.components.is_empty() {
        lines.push(format!("Components: {}", source.components.join(" ")));
    }
    if let Some(key) = &source.signed_by {
        lines.push(format!("Signed-By: {key}"));
    }
    lines.join("\n") + "\n\n"
}

/// The host's own sources as far as they are the distribution's public ones; the standard set
/// for its release otherwise.
pub(super) fn public_sources(root: &Path) -> Vec<Source> {
    let mut found = all_sources(root);
    found.retain(is_public);
    for source in &mut found {
        source.signed_by.take_if(|key| !key.starts_with("/usr/share/keyrings/"));
    }
    if found.is_empty() {
        found = standard(root);
    }
    found
}

/// The host's own sources for a release of Debian, its mirrors included: what the operator lets
/// this machine install from. Sources of other vendors, those with credentials, and those that
/// only this machine's apt could read are left out.
pub(crate) fn debian_sources(root: &Path, suite: &str) -> Vec<Source> {
    let of_release = |known: &String| {
        known == suite || known.strip_prefix(suite).is_some_and(|rest| rest.starts_with('-'))
    };
    let mut found = all_sources(root);
    found.retain(|source| {
        let debian = source.signed_by.as_deref().is_none_or(|key| {
            key == DEBIAN_KEYRING || key.ends_with("/debian-archive-keyring.pgp")
        });
        debian && is_plain(source) && source.components.iter().any(|name| name == "main")
    });
    for source in &mut found {
        source.suites.retain(of_release);
        source.components = vec!["main".into()];
    }
    found.retain(|source| !source.suites.is_empty());
    found
}

/// The code name of the host's release, when the host is a Debian.
pub(crate) fn debian_release(root: &Path) -> Option<String> {
    standard(root).first().and_then(|source| source.suites.first().cloned())
}

/// Every source in the host's lists.
fn all_sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let read = |path: &Path| {
        let text = files::read_bounded(path, MAX_LIST_BYTES).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    };
    let apt = root.join("etc/apt");
    found.extend(one_line(&read(&apt.join("sources.list"))));
    for path in entries(&apt.join("sources.list.d")) {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("list") => found.extend(one_line(&read(&path))),
            Some("sources") => found.extend(stanzas(&read(&path))),
            _ => {}
        }
    }
    found
}

fn is_public(source: &Source) -> bool {
    let Ok(url) = url::Url::parse(&source.uri) else { return false };
    let Some(host) = url.host_str() else { return false };
    let debian_mirror = host.starts_with("ftp.") && host.ends_with(".debian.org");
    let known = KNOWN
        .iter()
        .any(|known| host == *known || (known.starts_with('.') && host.ends_with(known)));
    is_plain(source) && url.port().is_none() && (known || debian_mirror)
}

/// Whether a source is fetched over HTTP without credentials, and all its words are plain.
fn is_plain(source: &Source) -> bool {
    let Ok(url) = url::Url::parse(&source.uri) else { return false };
    let words = source.suites.iter().chain(&source.components);
    let plain = |word: &String| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
    };
    matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && !source.suites.is_empty()
        && words.clone().all(plain)
}

fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut rest = line.strip_prefix("deb ")?.trim_start();
            let mut signed_by = None;
            if let Some(options) = rest.strip_prefix('[') {
                let (inside, after) = options.split_once(']')?;
                signed_by = inside
                    .split_ascii_whitespace()
                    .find_map(|word| word.strip_prefix("signed-by="))
                    .map(str::to_owned);
                rest = after;
            }
            let mut words = rest.split_ascii_whitespace().map(str::to_owned);
            Some(Source {
                uri: words.next()?,
                suites: vec![words.next()?],
                components: words.collect(),
                signed_by,
            })
        })
        .collect()
}

fn stanzas(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let text = text.replace("\r\n", "\n");
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let words = |name: &str| -> Vec<String> {
            field(name).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
        };
        if !words("Types").iter().any(|kind| kind == "deb")
            || field("Enabled").is_some_and(|on| on.eq_ignore_ascii_case("no"))
        {
            continue;
        }
        for uri in words("URIs") {
            found.push(Source {
                uri,
                suites: words("Suites"),
                components: words("Components"),
                signed_by: field("Signed-By").filter(|key| !key.is_empty()),
            });
        }
    }
    found
}

fn standard(root: &Path) -> Vec<Source> {
    let release = fs::read_to_string(root.join("usr/lib/os-release")).unwrap_or_default();
    let value = |key: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let Some(name) = value("VERSION_CODENAME") else { return Vec::new() };
    let source = |uri: &str, suites: &[String]| Source {
        uri: uri.into(),
        suites: suites.to_vec(),
        components: vec!["main".into()],
        signed_by: Some(DEBIAN_KEYRING.into()),
    };
    match value("ID").as_deref() {
        Some("debian") => vec![
            source("http://deb.debian.org/debian", &[name.clone(), format!("{name}-updates")]),
            source("http://deb.debian.org/debian-security", &[format!("{name}-security")]),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_known_archives_without_credentials_are_kept() {
        let list = "\
            deb http://deb.debian.org/debian bookworm main # fine\n\
            deb [arch=amd64 signed-by=/usr/share/keyrings/d.gpg] https://ftp.de.debian.org/debian bookworm main\n\
            deb https://user:pass@deb.debian.org/debian bookworm main\n\
            deb http://deb.debian.org:3142/debian bookworm main\n\
            deb http://apt.corp.example/debian bookworm main\n\
            deb http://10.0.0.5/debian bookworm main\n\
            deb http://deb.debian.org.evil.example/debian bookworm main\n\
            deb http://deb.debian.org/debian?token=x bookworm main\n\
            deb-src http://deb.debian.org/debian bookworm main\n\
            deb file:/srv/mirror bookworm main\n";
        let kept: Vec<String> =
            one_line(list).into_iter().filter(is_public).map(|source| source.uri).collect();
        assert_eq!(kept, ["http://deb.debian.org/debian", "https://ftp.de.debian.org/debian"]);
        let deb822 = "Types: deb\nURIs: http://deb.debian.org/debian https://corp.example/x\n\
            Suites: bookworm bookworm-updates\nComponents: main\nTrusted: yes\n\n\
            Types: deb\nEnabled: no\nURIs: http://deb.debian.org/debian\nSuites: sid\n";
        let kept: Vec<Source> = stanzas(deb822).into_iter().filter(is_public).collect();
        assert_eq!(kept.len(), 1);
        let text = render(&kept[0]);
        assert!(text.contains("bookworm-updates") && !text.contains("Trusted"), "{text}");
    }
    #[test]
    fn a_debian_is_made_from_what_this_machine_installs_from() {
        let dir = tempfile::tempdir().expect("a directory");
        let apt = dir.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&apt).expect("made");
        let list = "Types: deb\nURIs: http://mirror.corp:3142/debian\n\
            Suites: bookworm bookworm-updates trixie\nComponents: main contrib\n\n\
            Types: deb\nURIs: https://user:pass@mirror.corp/debian\nSuites: bookworm\n\
            Components: main\n\n\
            Types: deb\nURIs: https://vendor.corp/debian\nSuites: bookworm\nComponents: main\n\
            Signed-By: /usr/share/keyrings/vendor.gpg\n\n\
            Types: deb\nURIs: https://vendor.corp/debian\nSuites: bookworm\n\
            Components: stable\n\n\
            Types: deb\nURIs: file:/srv/mirror\nSuites: bookworm\nComponents: main\n";
        fs::write(apt.join("x.sources"), list).expect("written");
        let found = debian_sources(dir.path(), "bookworm");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].uri, "http://mirror.corp:3142/debian");
        assert_eq!(found[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(found[0].components, ["main"]);
        assert!(debian_sources(dir.path(), "book").is_empty());
    }
}
