//! Where the packages come from: archives that the operator chose, or Debian's own.

use std::path::{Path, PathBuf};

use pinfold_egress::Target;
use pinfold_types::{Error, ErrorCode, config::ImagesConfig};

use crate::{error::Result, host::apt};

/// Debian's own archive, for a machine that has no sources of its own for a release.
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// One suite of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub uri: String,
    pub suite: String,
}

/// The archives of an image, the release itself first, and who signs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    pub list: Vec<Source>,
    /// Keys of an archive that is not Debian's, where the tool finds them. Absent: those that
    /// this machine's apt trusts. The image trusts them too.
    pub keyring: Option<PathBuf>,
}

impl Sources {
    /// Chooses: the mirror asked for, the configured one, this machine's own, Debian's.
    pub(super) async fn choose(
        config: &ImagesConfig,
        egress: &pinfold_egress::Client,
        root: &Path,
        suite: &str,
        mirror: Option<&str>,
    ) -> Result<Self> {
        let keyring = config.debian_keyring.clone();
        let own: Vec<Source> = apt::debian_sources(root, suite)
            .into_iter()
            .flat_map(|source| {
                let uri = source.uri.trim_end_matches('/').to_owned();
                source.suites.into_iter().map(move |suite| Source { uri: uri.clone(), suite })
            })
            .collect();
        if let Some(asked) = mirror {
            let target = parse(asked)?;
            let chosen =
                own.iter().map(|source| source.uri.as_str()).chain(config.debian_mirror.as_deref());
            let known = chosen
                .filter_map(|uri| Target::parse(uri).ok())
                .any(|known| known.same_origin(&target));
            if !known {
                egress.check_address(&target).await.map_err(|refused| {
                    Error::from(refused).hint(
                        "a mirror on a private network is used when config.toml names it: \
                         debian_mirror under [images]",
                    )
                })?;
            }
        }
        if let Some(mirror) = mirror.or(config.debian_mirror.as_deref()) {
            parse(mirror)?;
            let uri = mirror.trim_end_matches('/').to_owned();
            return Ok(Self { list: vec![Source { uri, suite: suite.to_owned() }], keyring });
        }
        let (mut list, rest): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|source| source.suite == suite);
        if list.is_empty() {
            list.push(Source { uri: ARCHIVE.into(), suite: suite.to_owned() });
        } else {
            list.extend(rest);
        }
        Ok(Self { list, keyring })
    }

    /// Lines of sources.list(5).
    pub(super) fn lines(&self) -> Vec<String> {
        self.list.iter().map(|source| format!("deb {} {} main", source.uri, source.suite)).collect()
    }

    /// The archive of the release itself.
    pub(super) fn first(&self) -> &str {
        self.list.first().map_or(ARCHIVE, |source| &source.uri)
    }
}

fn parse(mirror: &str) -> Result<Target> {
    Ok(Target::parse(mirror).map_err(|refused| {
        Error::new(ErrorCode::InvalidArgument, format!("the Debian mirror {refused}"))
            .hint("a mirror looks like http://ftp.de.debian.org/debian")
    })?)
}

#[cfg(test)]
mod tests {
    use pinfold_egress::{Client, EgressConfig};

    use super::*;

    async fn choose(config: &ImagesConfig, root: &Path, mirror: Option<&str>) -> Result<Sources> {
        let egress = Client::new(EgressConfig::default());
        Sources::choose(config, &egress, root, "bookworm", mirror).await
    }

    #[tokio::test]
    async fn the_mirror_asked_for_comes_first_and_the_machines_own_before_debians() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = ImagesConfig::default();
        let found = choose(&config, dir.path(), None).await.expect("Debian's");
        assert_eq!(found.lines(), ["deb http://deb.debian.org/debian bookworm main"]);

        std::fs::create_dir_all(dir.path().join("etc/apt")).expect("made");
        let list = "deb http://10.0.0.5/security/ bookworm-security main\n\
                    deb http://10.0.0.5/debian/ bookworm main\n";
        std::fs::write(dir.path().join("etc/apt/sources.list"), list).expect("written");
        let found = choose(&config, dir.path(), None).await.expect("its own");
        let own = [
            "deb http://10.0.0.5/debian bookworm main",
            "deb http://10.0.0.5/security bookworm-security main",
        ];
        assert_eq!(found.lines(), own);
        // The machine's own archive may be named, another one in the same network may not.
        let found = choose(&config, dir.path(), Some("http://10.0.0.5/other")).await.expect("own");
        assert_eq!(found.lines(), ["deb http://10.0.0.5/other bookworm main"]);
        for private in
            ["http://10.0.0.6/debian", "http://127.0.0.1:8000/debian", "http://apt.lan/x"]
        {
            let refused: Error =
                choose(&config, dir.path(), Some(private)).await.expect_err("private").into();
            assert_eq!(refused.code, ErrorCode::EgressDenied, "{private}: {refused}");
            assert!(refused.hint.is_some_and(|hint| hint.contains("debian_mirror")));
        }
        for bad in ["ftp://a.org/debian", "http://u:p@a.org/debian", "http://a.org/a b", "x"] {
            let refused: Error =
                choose(&config, dir.path(), Some(bad)).await.expect_err("bad").into();
            assert_eq!(refused.code, ErrorCode::InvalidArgument, "{bad}: {refused}");
        }

        config.debian_mirror = Some("http://127.0.0.1:8000/debian/".into());
        config.debian_keyring = Some("/srv/key.gpg".into());
        let found = choose(&config, dir.path(), None).await.expect("the configured one");
        assert_eq!(found.lines(), ["deb http://127.0.0.1:8000/debian bookworm main"]);
        assert_eq!(found.keyring.as_deref(), Some(Path::new("/srv/key.gpg")));
    }
}
