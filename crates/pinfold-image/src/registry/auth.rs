//! Credentials: bearer tokens (distribution-spec's token flow), basic authentication, and the
//! references of the configuration that they come from (AUTH-11).

use std::{os::unix::fs::MetadataExt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use pinfold_egress::{Client, Limits};
use pinfold_types::{Error, ErrorCode, config::RegistryConfig};
use serde::Deserialize;

use crate::error::Result;

/// Longest password or token.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// What `WWW-Authenticate` asks for (RFC 9110 §11.6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ')?;
        let mut found = Self { scheme: scheme.to_ascii_lowercase(), ..Self::default() };
        while let Some((key, after)) = rest.split_once('=') {
            let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => {
                    let end = quoted.find('"')?;
                    (&quoted[..end], &quoted[end + 1..])
                }
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match key.as_str() {
                "realm" => value.clone_into(&mut found.realm),
                "service" => found.service = Some(value.to_owned()),
                "scope" => found.scope = Some(value.to_owned()),
                _ => {}
            }
            rest = after;
        }
        Some(found)
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// The value of `Authorization` that answers a challenge.
pub(super) async fn authorize(
    client: &Client,
    challenge: Option<&str>,
    scope: &str,
    config: &RegistryConfig,
    base: &str,
) -> Result<HeaderValue> {
    let unclear =
        || Error::new(ErrorCode::Upstream, "the registry asks for credentials in an unknown way");
    let challenge = challenge.and_then(Challenge::parse).ok_or_else(unclear)?;
    let basic = basic(config).await?;
    match challenge.scheme.as_str() {
        "basic" => basic.ok_or_else(|| {
            Error::new(ErrorCode::Upstream, "the registry asks for a user name and password")
                .hint("set username and password for it under [images.registries]")
                .into()
        }),
        "bearer" => {
            // A password must not travel in the clear because a challenge says so.
            if base.starts_with("https:") && !challenge.realm.starts_with("https:") {
                return Err(unclear().context("the realm is not https").into());
            }
            let mut url = url::Url::parse(&challenge.realm).map_err(|_| unclear())?;
            {
                let mut query = url.query_pairs_mut();
                if let Some(service) = &challenge.service {
                    query.append_pair("service", service);
                }
                query.append_pair("scope", challenge.scope.as_deref().unwrap_or(scope));
            }
            let mut headers = HeaderMap::new();
            if let Some(basic) = basic {
                headers.insert(AUTHORIZATION, basic);
            }
            let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
            let mut answer =
                client.get(url.as_str(), headers, &limits).await.map_err(Error::from)?;
            if !answer.status.is_success() {
                return Err(Error::new(
                    ErrorCode::Upstream,
                    format!("{} gives no token: {}", answer.target.host(), answer.status),
                )
                .hint("check username and password under [images.registries]")
                .into());
            }
            let text = answer.body.bytes().await.map_err(Error::from)?;
            let token: Token = serde_json::from_slice(&text).map_err(|_| unclear())?;
            let token = token.token.or(token.access_token).ok_or_else(unclear)?;
            header("Bearer", &token)
        }
        _ => Err(unclear().into()),
    }
}

fn header(scheme: &str, value: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {value}")).map_err(|_| {
        Error::new(ErrorCode::Upstream, "the credential has characters that cannot be sent")
    })?;
    header.set_sensitive(true);
    Ok(header)
}

async fn basic(config: &RegistryConfig) -> Result<Option<HeaderValue>> {
    let (Some(user), Some(reference)) = (&config.username, &config.password) else {
        return Ok(None);
    };
    let password = secret(reference).await?;
    Ok(Some(header("Basic", &STANDARD.encode(format!("{user}:{password}")))?))
}

/// The value behind `env:NAME`, `file:PATH` or `cmd:COMMAND`.
pub(super) async fn secret(reference: &str) -> Result<String> {
    let refuse = |why: String| Error::new(ErrorCode::InvalidArgument, why);
    let value = if let Some(name) = reference.strip_prefix("env:") {
        std::env::var(name).map_err(|_| {
            refuse(format!("the environment variable {name} of a registry's password is not set"))
        })?
    } else if let Some(path) = reference.strip_prefix("file:") {
        let facts = tokio::fs::metadata(path)
            .await
            .map_err(|err| refuse(format!("cannot read the password file {path}: {err}")))?;
        if facts.mode() & 0o077 != 0 {
            return Err(refuse(format!("the password file {path} is open to others"))
                .hint(format!("chmod 600 {path}"))
                .into());
        }
        if facts.len() > MAX_SECRET_BYTES as u64 {
            return Err(refuse(format!("the password file {path} is too long")).into());
        }
        tokio::fs::read_to_string(path)
            .await
            .map_err(|err| refuse(format!("cannot read the password file {path}: {err}")))?
    } else if let Some(command) = reference.strip_prefix("cmd:") {
        let run = tokio::process::Command::new("sh")
            .args(["-c", command])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(30), run)
            .await
            .map_err(|_| refuse("the password command of a registry took over 30 s".into()))?
            .map_err(|err| refuse(format!("cannot run the password command: {err}")))?;
        if !output.status.success() || output.stdout.len() > MAX_SECRET_BYTES {
            return Err(refuse("the password command of a registry failed".into()).into());
        }
        String::from_utf8(output.stdout)
            .map_err(|_| refuse("the password command did not print text".into()))?
    } else {
        return Err(refuse("a registry's password must be env:, file: or cmd:".into()).into());
    };
    Ok(value.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let found = Challenge::parse(
            r#"Bearer realm="https://auth.example/token",service="reg, istry",scope="repository:a/b:pull""#,
        )
        .expect("parses");
        assert_eq!(found.scheme, "bearer");
        assert_eq!(found.realm, "https://auth.example/token");
        assert_eq!(found.service.as_deref(), Some("reg, istry"));
        assert_eq!(found.scope.as_deref(), Some("repository:a/b:pull"));
        assert_eq!(Challenge::parse("Basic realm=x").expect("parses").realm, "x");
        for odd in ["", "Bearer", "Bearer realm=\"x", "Bearer =,=,="] {
            let _ = Challenge::parse(odd);
        }
    }

    #[tokio::test]
    async fn secrets_come_from_references_only() {
        assert!(secret("plain").await.is_err());
        assert_eq!(secret("cmd:printf 'a b\\n'").await.expect("printed"), "a b");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("p");
        std::fs::write(&path, "hidden\n").expect("written");
        let open = |mode| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        };
        open(0o644);
        let refused = secret(&format!("file:{}", path.display())).await.expect_err("open");
        assert!(refused.to_string().contains("open to others"));
        open(0o600);
        assert_eq!(secret(&format!("file:{}", path.display())).await.expect("read"), "hidden");
    }
}
