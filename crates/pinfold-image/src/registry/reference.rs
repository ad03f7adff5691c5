//! Where an image is, in the words that people use for registries.

use pinfold_types::{Error, ErrorCode, ImageName, name::excerpt};

use crate::oci::Digest;

/// Docker's registry answers under another name than people write.
const DOCKER: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";

/// A parsed reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// As written, or `docker.io`.
    pub registry: String,
    pub repository: String,
    /// Tag or digest.
    pub version: String,
    /// The name it has here when no other is asked for.
    pub name: ImageName,
}

impl Reference {
    /// `[registry/]repository[:tag][@sha256:…]`. The first part is a registry when it has a dot
    /// or a colon, or is `localhost`; a single part on Docker's registry means `library/…`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (plain, digest) = match text.split_once('@') {
            Some((plain, digest)) => {
                let digest = Digest::try_from(digest.to_owned()).map_err(Error::from)?;
                (plain, Some(digest))
            }
            None => (text, None),
        };
        let name: ImageName = plain.parse()?;
        let (path, tag) = match plain.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (plain, None),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            _ => (DOCKER, path.to_owned()),
        };
        let repository = if registry == DOCKER && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if repository.is_empty() || repository.contains(':') {
            return Err(Error::new(
                ErrorCode::InvalidName,
                format!("{:?} names no repository", excerpt(text)),
            ));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            version: digest.map_or_else(|| tag.unwrap_or("latest").to_owned(), String::from),
            name,
        })
    }

    /// The host that is asked, with its port where one is written.
    pub(crate) fn host(&self) -> &str {
        if self.registry == DOCKER { DOCKER_HOST } else { &self.registry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_mean_what_people_mean() {
        for (text, host, repository, version) in [
            ("debian", DOCKER_HOST, "library/debian", "latest"),
            ("debian:12", DOCKER_HOST, "library/debian", "12"),
            ("grafana/loki:3.0", DOCKER_HOST, "grafana/loki", "3.0"),
            ("docker.io/debian", DOCKER_HOST, "library/debian", "latest"),
            ("ghcr.io/a/b/c:x", "ghcr.io", "a/b/c", "x"),
            ("localhost/x", "localhost", "x", "latest"),
            ("127.0.0.1:5000/x:1", "127.0.0.1:5000", "x", "1"),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(
                (reference.host(), reference.repository.as_str(), reference.version.as_str()),
                (host, repository, version),
                "{text}"
            );
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = Reference::parse(&format!("ghcr.io/a/b:1@{digest}")).expect("digest");
        assert_eq!(by_digest.version, digest);
        for bad in ["", "A/b", "x@sha256:1", "ghcr.io/../x", "x:y:z", "-x", "a//b"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
