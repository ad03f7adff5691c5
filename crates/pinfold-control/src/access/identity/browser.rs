//! Browsers that are signed in: tokens of their own class, which end when they are idle.

use jiff::{SignedDuration, Timestamp};
use pinfold_auth::{CredentialClass, Principal, Token};
use pinfold_types::{PrincipalId, Result, TokenId, access::NewToken, config::LoginConfig};

use super::{
    Identity,
    record::{TokenBody, entry, hex},
};

impl Identity {
    /// A token for one browser of this principal: its rights, and never longer than the credential
    /// that the link was made with.
    pub(crate) async fn sign_in(
        &self,
        person: &Principal,
        life: &LoginConfig,
        now: Timestamp,
    ) -> Result<NewToken> {
        let token = Token::generate(CredentialClass::Browser)?;
        let authority = person.authority();
        let end = person.expires_at().into_iter().chain([now + lasting(life.max_ms)]).min();
        let body = TokenBody {
            name: "browser".into(),
            class: CredentialClass::Browser,
            hash: hex(self.authenticator.hash(&token).as_bytes()),
            principal: person.id(),
            maker: person.id(),
            parent: person.token(),
            scopes: authority.scopes.patterns().map(str::to_owned).collect(),
            reach: authority.reach,
            workspaces: authority.workspaces.clone(),
            own: None,
            session: person.session(),
            created_at: now,
            expires_at: end,
            idle_ms: Some(i64::try_from(life.idle_ms).unwrap_or(i64::MAX)),
            last_used_at: None,
            revoked_at: None,
            granted: None,
        };
        let mut info = self.admit(entry(token.id(), body)?, None, now).await?;
        // The cookie lasts as long as it can: when it was idle is judged here, at each use.
        info.expires_at = end;
        Ok(NewToken { token: token.reveal().to_string(), info })
    }

    /// Ends every browser session of a principal.
    pub(crate) async fn end_browsers(
        &self,
        principal: PrincipalId,
        now: Timestamp,
    ) -> Result<Vec<TokenId>> {
        let of = {
            let tables = self.read();
            let all = tables.tokens.iter().filter(|(_, entry)| {
                entry.body.class == CredentialClass::Browser
                    && entry.body.principal == principal
                    && entry.stands(now)
            });
            all.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        if of.is_empty() {
            return Ok(of);
        }
        self.revoke_all(of.clone(), now).await?;
        Ok(of)
    }
}

pub(super) fn lasting(ms: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}
