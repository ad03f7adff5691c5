//! Browsers that are signed in: tokens of their own class, which end when they are idle.

use jiff::Timestamp;
use pinfold_auth::{CredentialClass, Principal, Token};
use pinfold_types::{PrincipalId, Result, TokenId, access::NewToken, config::LoginConfig};

use super::{
    Identity,
    record::{TokenBody, entry, lasting},
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
        let hash = self.authenticator.hash(&token);
        let authority = person.authority().clone();
        let end = person.expires_at().into_iter().chain([now + lasting(life.max_ms)]).min();
        let body = TokenBody {
            name: "browser".into(),
            parent: person.token(),
            session: person.session(),
            expires_at: end,
            idle_ms: Some(i64::try_from(life.idle_ms).unwrap_or(i64::MAX)),
            ..TokenBody::new(CredentialClass::Browser, &hash, person.id(), authority, now)
        };
        let mut info = self.admit(entry(token.id(), body)?, None, now).await?;
        // The cookie lasts as long as it can: when it was idle is judged here, at each use.
        info.expires_at = end;
        Ok(NewToken { token: Some(token.reveal().to_string()), info })
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
