//! Which files of `/etc` are exactly as their package shipped them.

use std::{collections::BTreeMap, fs, path::Path};

use md5::{Digest, Md5};

use crate::{
    error::{ImageError, Result},
    files,
};

/// Longest database read; a large desktop has about 10 MB.
const MAX_STATUS_BYTES: u64 = 256 << 20;
/// Longest configuration file looked at.
const MAX_CONFFILE_BYTES: u64 = 4 << 20;

/// The configuration files that dpkg knows, with the MD5 of what the package shipped.
#[derive(Debug, Default)]
pub(super) struct Database {
    conffiles: BTreeMap<String, String>,
}

impl Database {
    /// Reads `var/lib/dpkg/status`; a host without dpkg has none.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let path = root.join("var/lib/dpkg/status");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = files::read_bounded(&path, MAX_STATUS_BYTES)?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let mut conffiles = BTreeMap::new();
        let (mut installed, mut listing) = (false, false);
        for line in text.lines() {
            if line.is_empty() {
                (installed, listing) = (false, false);
            } else if let Some(status) = line.strip_prefix("Status:") {
                installed = status.trim().ends_with(" installed");
            } else if let Some(entry) = line.strip_prefix(' ').filter(|_| listing && installed) {
                let mut parts = entry.split_ascii_whitespace();
                if let (Some(path), Some(md5), None) = (parts.next(), parts.next(), parts.next())
                    && md5.len() == 32
                {
                    conffiles.insert(path.to_owned(), md5.to_owned());
                }
            } else {
                listing = line == "Conffiles:";
            }
        }
        Self { conffiles }
    }

    /// Absolute paths of configuration files and their content, unchanged ones only.
    pub(super) fn pristine<'a>(
        &'a self,
        root: &'a Path,
    ) -> impl Iterator<Item = Result<(&'a str, Vec<u8>, u32)>> + 'a {
        use std::os::unix::fs::MetadataExt;
        self.conffiles.iter().filter_map(move |(name, md5)| {
            let path = root.join(name.trim_start_matches('/'));
            let facts = fs::symlink_metadata(&path).ok()?;
            if !facts.is_file() || facts.len() > MAX_CONFFILE_BYTES || facts.mode() & 0o004 == 0 {
                return None;
            }
            // A directory on the way may be a link to anywhere.
            let parent = path.parent()?;
            if fs::canonicalize(parent).ok()? != parent {
                return None;
            }
            match fs::read(&path) {
                Ok(content) if files::hex(&Md5::digest(&content)) == *md5 => {
                    Some(Ok((name.as_str(), content, facts.mode() & 0o755)))
                }
                Ok(_) => None,
                Err(err) => Some(Err(ImageError::io("read", path)(err))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_with_plain_entries_count() {
        let database = Database::parse(
            "Package: a\nStatus: install ok installed\nConffiles:\n \
             /etc/a 0123456789abcdef0123456789abcdef\n \
             /etc/gone 0123456789abcdef0123456789abcdef obsolete\n /etc/new newconffile\n\
             Description: x\n /etc/not 0123456789abcdef0123456789abcdef\n\n\
             Package: b\nStatus: deinstall ok config-files\nConffiles:\n \
             /etc/b 0123456789abcdef0123456789abcdef\n",
        );
        assert_eq!(database.conffiles.keys().collect::<Vec<_>>(), ["/etc/a"]);
    }
}
