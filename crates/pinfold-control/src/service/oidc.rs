//! Tokens of an external provider.

use jiff::Timestamp;
use pinfold_auth::{ForeignToken, Surface, unauthenticated};
use pinfold_types::Result;

use crate::{
    Node, Service,
    access::{identity::Known, oauth::scopes::offered},
    events::Visitor,
};

/// The external provider, as clients are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Provider<'a> {
    /// Its name and place.
    pub issuer: &'a str,
    /// What its tokens have to be meant for; absent: this server's `/mcp` as it is called.
    pub resource: Option<&'a str>,
}

impl<N: Node> Service<N> {
    /// The provider that gives the tokens for MCP over HTTP, where the built-in server does not.
    pub fn provider(&self) -> Option<Provider<'_>> {
        let oidc = self.access().oidc()?;
        Some(Provider { issuer: oidc.issuer(), resource: oidc.resource() })
    }

    /// What clients of MCP can ask for, in the words of whoever gives the tokens.
    pub fn scopes_to_ask_for(&self) -> Vec<String> {
        match self.access().oidc() {
            Some(oidc) => oidc.offered(),
            None => offered().names(),
        }
    }

    /// Scopes, with spaces between, in the words of whoever gives the tokens.
    pub fn as_it_is_asked_for(&self, scopes: String) -> String {
        let Some(oidc) = self.access().oidc() else { return scopes };
        oidc.in_its_words(&scopes).into_iter().collect::<Vec<_>>().join(" ")
    }

    /// Takes a token of the provider in, so that it is known from now on. A text that is none is
    /// left to whoever recognises callers. `called` is what this server's `/mcp` was called.
    ///
    /// # Errors
    /// `unauthenticated` for a token that cannot be believed, or of somebody who is nobody here;
    /// 429 for who comes too often with new ones; `unavailable` while the provider's keys cannot be
    /// had.
    pub async fn take_in(
        &self,
        presented: &str,
        surface: Surface,
        called: &str,
        visitor: &Visitor,
    ) -> Result<()> {
        let Some(token) = ForeignToken::of(presented) else { return Ok(()) };
        let (Some(oidc), Surface::Mcp) = (self.access().oidc(), surface) else {
            return Err(unauthenticated("another provider's token, which is not taken here"));
        };
        let identity = self.access().identity();
        match identity.knows(token, oidc.issuer()) {
            Known::Yes => return Ok(()),
            Known::OfAnother => {
                return Err(unauthenticated("a token of a provider that is not trusted any more"));
            }
            Known::No => {}
        }
        self.inner.events.audit().healthy()?;
        self.count_login(visitor).await?;
        let now = Timestamp::now();
        let says = oidc.verify(token, called, now).await?;
        let (scopes, client) = (says.scopes.clone(), says.client.clone());
        let info = identity.vouch(token, says, now).await?;
        let event = self.inner.events.security("oidc.admitted", visitor, |event| {
            event.surface = surface.as_str().into();
            event.principal = info.principal.to_string();
            event.credential = Some(info.fingerprint.clone());
            event.made = vec![info.id.to_string()];
            let detail = [("client", client), ("asked", scopes.to_string())];
            event.detail.extend(detail.map(|(name, value)| (name.to_owned(), value)));
        });
        event.await
    }
}
