//! `[oidc]`: another authorization server than the built-in one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use super::login::OutsideHost;
use crate::{Error, ErrorCode};

/// Most scopes of the provider that can be given a meaning.
const MAX_SCOPES: usize = 64;

/// `[oidc]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OidcConfig {
    /// The provider, as it writes itself in `iss`. Set, it gives the tokens for MCP over HTTP, and
    /// the built-in authorization server is closed.
    pub issuer: Option<String>,
    /// What tokens have to be meant for (`aud`): the URL of this server's `/mcp`. Absent: as the
    /// request calls it.
    pub resource: Option<String>,
    /// What the provider's own scopes stand for, in scopes of ours. Those of ours mean themselves.
    pub scopes: BTreeMap<String, Vec<String>>,
    /// Hosts of the provider that the guard would refuse, by exact `host:port`.
    pub hosts: BTreeMap<String, OutsideHost>,
}

impl OidcConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |why: String| Error::new(ErrorCode::InvalidArgument, why);
        if let Some(issuer) = &self.issuer
            && plain(issuer).is_none_or(|url| url.scheme() != "https")
        {
            return Err(bad(format!("oidc.issuer: {issuer:?} is not an https URL"))
                .hint("write it as the provider does, without query and fragment"));
        }
        if let Some(resource) = &self.resource
            && plain(resource).is_none_or(|url| url.path() != "/mcp")
        {
            return Err(bad(format!("oidc.resource: {resource:?} is not a URL of /mcp"))
                .hint("such as https://pinfold.example.org/mcp"));
        }
        if self.issuer.is_none() && *self != Self::default() {
            return Err(bad("oidc.issuer is missing, and nothing else of [oidc] counts".into()));
        }
        if self.scopes.len() > MAX_SCOPES {
            return Err(bad(format!("oidc.scopes has more than {MAX_SCOPES} names")));
        }
        Ok(())
    }
}

/// A URL of http or https without query, fragment and credentials.
fn plain(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let fine = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    fine.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn what_names_no_provider_is_refused() {
        let fine = "[oidc]\nissuer = \"https://id.example/realms/a\"\n\
                    resource = \"https://pinfold.example/mcp\"\n";
        assert!(Config::parse(fine).is_ok());
        assert!(Config::parse("[oidc]\nissuer = \"https://id.example\"").is_ok());
        for bad in [
            "[oidc]\nresource = \"https://pinfold.example/mcp\"",
            &fine.replace("https://id", "http://id"),
            &fine.replace("/realms/a", "/?a"),
            &fine.replace("/realms/a", "/#a"),
            &fine.replace("id.example", "me:pw@id.example"),
            &fine.replace("/mcp", "/"),
            &fine.replace("https://pinfold.example/mcp", "pinfold"),
            &format!("{fine}wrong = 1"),
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }
}
