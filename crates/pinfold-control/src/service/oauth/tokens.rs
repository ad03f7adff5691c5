//! Tokens for a code or a refresh token, and taking them back.

use jiff::Timestamp;
use pinfold_types::Result;

use super::{OauthError, canonical};
use crate::{
    Node, Service,
    access::{
        identity::{Denied, Issued, Redeemed, Renewed},
        oauth::scopes,
    },
    events::Visitor,
};

/// What a client shows at the token endpoint.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// `authorization_code` or `refresh_token`.
    pub grant_type: String,
    /// Who asks.
    pub client_id: String,
    /// Of `authorization_code`.
    pub code: String,
    /// Of `authorization_code`; may be left out.
    pub redirect_uri: Option<String>,
    /// Of `authorization_code`.
    pub code_verifier: String,
    /// Of `refresh_token`.
    pub refresh_token: String,
    /// Of `refresh_token`: fewer than were granted.
    pub scope: Option<String>,
    /// RFC 8707.
    pub resource: Option<String>,
}

/// Tokens for a client.
#[derive(Clone)]
pub struct Tokens {
    /// Opens MCP.
    pub access_token: String,
    /// Gets the next.
    pub refresh_token: String,
    /// How long the first stands, in seconds.
    pub expires_in_s: i64,
    /// What it may.
    pub scope: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl<N: Node> Service<N> {
    /// Gives tokens for a code or a refresh token.
    pub async fn issue_tokens(
        &self,
        shown: &Shown,
        visitor: &Visitor,
    ) -> Result<Tokens, OauthError> {
        self.inner.events.audit().healthy()?;
        self.count_login(visitor).await?;
        if shown.client_id.is_empty() {
            return Err(OauthError::new("invalid_client", 400, "client_id is missing"));
        }
        let (access, now) = (self.access(), Timestamp::now());
        let oauth = access.oauth();
        let resource = shown.resource.as_deref().map(canonical);
        let allowed = |id| oauth.allows(id);
        let (what, issued) = match shown.grant_type.as_str() {
            "authorization_code" => {
                let redeemed = Redeemed {
                    code: &shown.code,
                    client: &shown.client_id,
                    redirect: shown.redirect_uri.as_deref(),
                    verifier: &shown.code_verifier,
                    resource: resource.as_deref(),
                };
                let issued = access.identity().exchange(&redeemed, allowed, &oauth.config, now);
                ("oauth.issued", issued.await)
            }
            "refresh_token" => {
                let scopes =
                    match shown.scope.as_deref().filter(|text| !text.is_empty()) {
                        Some(text) => Some(scopes::asked(Some(text)).map_err(|error| {
                            OauthError::new("invalid_scope", 400, error.message)
                        })?),
                        None => None,
                    };
                let renewed = Renewed {
                    token: &shown.refresh_token,
                    client: &shown.client_id,
                    scopes: scopes.as_ref(),
                    resource: resource.as_deref(),
                };
                let issued = access.identity().refresh(&renewed, allowed, &oauth.config, now);
                ("oauth.refreshed", issued.await)
            }
            _ => {
                let why = "grant_type is authorization_code or refresh_token";
                return Err(OauthError::new("unsupported_grant_type", 400, why));
            }
        };
        let issued = match issued {
            Ok(issued) => issued,
            Err(denied) => return Err(self.denied(denied, shown, visitor).await),
        };
        self.issued_event(what, &issued, shown, visitor).await?;
        let Issued { access, refresh, expires_in, scopes, .. } = issued;
        Ok(Tokens {
            access_token: access.to_string(),
            refresh_token: refresh.to_string(),
            expires_in_s: expires_in.as_secs(),
            scope: scopes.to_string(),
        })
    }

    async fn issued_event(
        &self,
        what: &'static str,
        issued: &Issued,
        shown: &Shown,
        visitor: &Visitor,
    ) -> Result<()> {
        let event = self.inner.events.security(what, visitor, |event| {
            event.principal = issued.principal.to_string();
            event.credential = Some(issued.fingerprint.clone());
            event.object = format!("token {}", issued.grant);
            event.made = vec![issued.made.to_string()];
            event.detail.insert("client".into(), shown.client_id.clone());
        });
        event.await
    }

    async fn denied(&self, denied: Denied, shown: &Shown, visitor: &Visitor) -> OauthError {
        match denied {
            Denied::Failed(error) => error.into(),
            Denied::Scope => OauthError::new(
                "invalid_scope",
                400,
                "more is asked for than was granted; ask the person again",
            ),
            Denied::Resource => {
                OauthError::new("invalid_target", 400, "another resource than was granted")
            }
            Denied::Invalid(why) => {
                let error = pinfold_auth::unauthenticated(why);
                self.inner.events.turned_away("oauth.failed", visitor, &error);
                OauthError::new("invalid_grant", 400, "this code or refresh token does not stand")
            }
            Denied::Reused(grant, principal) => {
                let event = self.inner.events.security("oauth.reused", visitor, |event| {
                    event.principal = principal.to_string();
                    event.object = format!("token {grant}");
                    event.decision = "refuse".into();
                    event.rule = "what was used is used again: the grant has ended".into();
                    event.detail.insert("client".into(), shown.client_id.clone());
                });
                if let Err(error) = event.await {
                    return error.into();
                }
                OauthError::new("invalid_grant", 400, "this code or refresh token does not stand")
            }
        }
    }

    /// Revokes what a client shows (RFC 7009). What is not its own is left alone.
    pub async fn give_back(
        &self,
        token: &str,
        client: &str,
        visitor: &Visitor,
    ) -> Result<(), OauthError> {
        self.inner.events.audit().healthy()?;
        self.count_login(visitor).await?;
        let identity = self.access().identity();
        if let Some(info) = identity.revoke_shown(token, client, Timestamp::now()).await? {
            let event = self.inner.events.security("oauth.revoked", visitor, |event| {
                event.principal = info.principal.to_string();
                event.credential = Some(info.fingerprint.clone());
                event.object = format!("token {}", info.id);
                event.detail.insert("client".into(), client.to_owned());
            });
            event.await?;
        }
        Ok(())
    }
}
