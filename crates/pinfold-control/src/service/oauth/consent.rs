//! What a person is asked, and what comes of the answer.

use jiff::Timestamp;
use pinfold_auth::{Caller, Grant, ScopeSet, ops};
use pinfold_types::{Error, ErrorCode, Result};

use super::{OauthError, sent_back};
use crate::{
    Node, Service,
    access::{
        identity::Grantee,
        oauth::{Client, pending::Wish, redirect, scopes},
    },
    events::Visitor,
};

impl<N: Node> Service<N> {
    /// Shows a wish to a person: the number of the page, and what they can grant of it. They need
    /// to be on the list of those who may log clients in.
    pub async fn ask_consent(&self, caller: &Caller, wish: &Wish) -> Result<(String, ScopeSet)> {
        let person = caller.principal();
        let Some(browser) = person.token() else {
            return Err(pinfold_auth::unauthenticated("no browser"));
        };
        if !self.access().oauth().allows(person.id()) {
            let visitor = Visitor::of(caller);
            self.consent_event("oauth.refused", caller, wish, &visitor).await?;
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!("{} may not let clients in", person.id()),
            )
            .hint("whoever runs this server names those who may in oauth.allowed"));
        }
        let can = wish.scopes.and(&person.authority().scopes);
        let number = self.access().oauth().waiting.ask(browser, wish.clone())?;
        Ok((number, can))
    }

    /// The wish that a page with this number showed to this browser, once.
    pub fn answered(&self, caller: &Caller, number: &str) -> Option<Wish> {
        self.access().oauth().waiting.answer(caller.principal().token()?, number)
    }

    /// Grants what a page showed, or only what of it looks. Gives where to send the browser, with
    /// the code.
    pub async fn consent(
        &self,
        grant: Grant<ops::TokenCreate>,
        wish: &Wish,
        only_looking: bool,
    ) -> Result<String> {
        let call = self.enter(grant)?;
        let (caller, now) = (call.caller().clone(), Timestamp::now());
        let person = caller.principal();
        let granted = async {
            let oauth = self.access().oauth();
            if !oauth.allows(person.id()) {
                return Err(Error::new(ErrorCode::Forbidden, "you may not let clients in"));
            }
            let mut scopes = wish.scopes.and(&person.authority().scopes);
            if only_looking {
                scopes = scopes.and(&scopes::looking());
            }
            if scopes.is_empty() {
                return Err(Error::new(
                    ErrorCode::Forbidden,
                    "nothing is left of what the client asks for",
                ));
            }
            let grantee = Grantee {
                client: wish.client.id.clone(),
                shown: shown(wish),
                name: token_name(&wish.client),
                redirect: wish.redirect.clone(),
                challenge: wish.challenge.clone(),
                resource: wish.resource.clone(),
                scopes,
            };
            let identity = self.access().identity();
            let code = identity.consent(person, grantee, &oauth.config, now).await?;
            oauth.clients.used(&wish.client.id, now).await?;
            Ok(code)
        };
        let granted = granted.await;
        let (code, _) = call.end_with(granted, |(_, info)| vec![info.id.to_string()]).await?;
        self.consent_event("oauth.consented", &caller, wish, &Visitor::of(&caller)).await?;
        let mut parameters = vec![("code", code.as_str()), ("iss", wish.issuer.as_str())];
        parameters.extend(wish.state.as_deref().map(|state| ("state", state)));
        Ok(redirect::with(&wish.redirect, &parameters))
    }

    /// Refuses what a page showed. Gives where to send the browser.
    pub async fn deny(&self, caller: &Caller, wish: &Wish) -> Result<String> {
        self.consent_event("oauth.denied", caller, wish, &Visitor::of(caller)).await?;
        let error = OauthError::new("access_denied", 403, "the person said no");
        Ok(sent_back(&wish.redirect, &error, wish.state.as_deref(), &wish.issuer))
    }

    async fn consent_event(
        &self,
        what: &'static str,
        caller: &Caller,
        wish: &Wish,
        visitor: &Visitor,
    ) -> Result<()> {
        let person = caller.principal();
        let event = self.inner.events.security(what, visitor, |event| {
            event.principal = person.id().to_string();
            event.credential = person.fingerprint().map(str::to_owned);
            event.object = format!("client {}", wish.client.id);
            let detail = [
                ("name", wish.client.name.clone()),
                ("back_to", redirect::place(&wish.redirect)),
                ("asked", wish.scopes.to_string()),
            ];
            event.detail.extend(detail.map(|(name, value)| (name.to_owned(), value)));
        });
        event.await
    }
}

/// The client as it is listed among tokens.
fn shown(wish: &Wish) -> String {
    let from = match &wish.client.host {
        Some(host) => host.clone(),
        None => redirect::place(&wish.redirect),
    };
    format!("{}, {from}", wish.client.name)
}

/// A token's name that reminds of the client's.
fn token_name(client: &Client) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = client.name.chars().map(fine).take(50).collect();
    format!("mcp-{}", name.trim_matches('-'))
}
