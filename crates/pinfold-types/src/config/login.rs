//! `[login]` and `[oauth]`: browsers, and clients of MCP over HTTP.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, PrincipalId};

/// The word for the user who runs the server, in `oauth.allowed`.
pub const OWNER: &str = "owner";
/// The word for everybody who can log in, in `oauth.allowed`.
pub const ANYBODY: &str = "*";

const SECOND_MS: u64 = 1000;
const DAY_MS: u64 = 86_400_000;

/// `[login]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginConfig {
    /// How long a link of `pinfold login` stands, 1 s to an hour.
    pub link_ms: u64,
    /// A browser's session ends this long after its last request, 1 s to 365 days.
    pub idle_ms: u64,
    /// And this long after it began, 1 s to 365 days.
    pub max_ms: u64,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self { link_ms: 600 * SECOND_MS, idle_ms: DAY_MS / 2, max_ms: 7 * DAY_MS }
    }
}

impl LoginConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        within("login.link_ms", self.link_ms, 3600 * SECOND_MS)?;
        within("login.idle_ms", self.idle_ms, 365 * DAY_MS)?;
        within("login.max_ms", self.max_ms, 365 * DAY_MS)
    }
}

/// `[oauth]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OauthConfig {
    /// Whether the server gives tokens to clients of MCP over HTTP.
    pub enabled: bool,
    /// Who may let a client in: `owner`, ids of principals, or `*` for everybody who can log in.
    pub allowed: Vec<String>,
    /// Whether clients may register themselves (RFC 7591).
    pub registration: bool,
    /// How long an access token stands, 1 s to a day.
    pub access_ms: u64,
    /// What was granted ends this long after a client last refreshed it, 1 s to 365 days.
    pub idle_ms: u64,
    /// And this long after it was granted, 1 s to 365 days.
    pub max_ms: u64,
    /// Private schemes that a client may be sent back to, besides those with a dot in them.
    pub redirect_schemes: Vec<String>,
    /// Hosts of client documents that the guard would refuse, by exact `host:port`.
    pub hosts: BTreeMap<String, OutsideHost>,
}

impl Default for OauthConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allowed: vec![OWNER.to_owned()],
            registration: true,
            access_ms: 600 * SECOND_MS,
            idle_ms: 30 * DAY_MS,
            max_ms: 180 * DAY_MS,
            redirect_schemes: ["cursor", "vscode", "vscode-insiders"].map(str::to_owned).into(),
            hosts: BTreeMap::new(),
        }
    }
}

/// A host that the operator names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutsideHost {
    /// It may have a private or loopback address.
    pub allow_private: bool,
    /// One more root certificate, PEM.
    pub ca_file: Option<PathBuf>,
}

impl OauthConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        within("oauth.access_ms", self.access_ms, DAY_MS)?;
        within("oauth.idle_ms", self.idle_ms, 365 * DAY_MS)?;
        within("oauth.max_ms", self.max_ms, 365 * DAY_MS)?;
        for who in &self.allowed {
            if who != OWNER && who != ANYBODY && who.parse::<PrincipalId>().is_err() {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("oauth.allowed: {who:?} is nobody"),
                )
                .hint("write \"owner\", the id of a principal (pinfold whoami), or \"*\""));
            }
        }
        for scheme in &self.redirect_schemes {
            let letters =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
            let known =
                ["http", "https", "javascript", "data", "file", "blob", "about", "vbscript"];
            let first = scheme.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
            if !first || !scheme.bytes().all(letters) || known.contains(&scheme.as_str()) {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("oauth.redirect_schemes: {scheme:?} is no private scheme"),
                )
                .hint("write the scheme alone, in lower case, as in \"cursor\""));
            }
        }
        Ok(())
    }
}

fn within(key: &str, value: u64, most: u64) -> Result<(), Error> {
    if (SECOND_MS..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidArgument, format!("{key} must be {SECOND_MS} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "[login]\nidle_ms = 0",
            "[login]\nlink_ms = 3600001",
            "[oauth]\naccess_ms = 86400001",
            "[oauth]\nallowed = [\"alice\"]",
            "[oauth]\nredirect_schemes = [\"javascript\"]",
            "[oauth]\nredirect_schemes = [\"Cursor\"]",
            "[oauth]\nredirect_schemes = [\"\"]",
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
        let fine = "[oauth]\nallowed = [\"owner\", \"usr_00000000000000000000000000\", \"*\"]";
        assert!(Config::parse(fine).is_ok());
    }
}
