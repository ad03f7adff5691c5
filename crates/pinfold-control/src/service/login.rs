//! Browsers: a link, a session that comes of it, and its end.

use jiff::Timestamp;
use pinfold_auth::{Caller, CredentialClass, Grant, operation::RateClass, ops, unauthenticated};
use pinfold_types::{
    Error, ErrorCode, RequestId, Result,
    access::{EndedLogins, NewLogin, NewToken},
};

use crate::{Node, Service, events::Visitor};

impl<N: Node> Service<N> {
    /// Says under which URLs, as `https://HOST:PORT`, browsers find this server, the best first.
    /// Later words count for nothing.
    pub fn found_at(&self, pages: Vec<String>) {
        drop(self.inner.pages.set(pages));
    }

    /// Makes a link that signs one browser in as the caller. `page` is the URL that the caller
    /// came by, where that is one for browsers.
    pub async fn create_login(
        &self,
        grant: Grant<ops::LoginCreate>,
        page: Option<&str>,
    ) -> Result<NewLogin> {
        let call = self.enter(grant)?;
        let pages = self.inner.pages.get().map(Vec::as_slice).unwrap_or_default();
        let made = match page.or(pages.first().map(String::as_str)) {
            Some(page) => {
                let links = self.access().links();
                links.issue(call.caller().principal()).map(|code| NewLogin {
                    url: format!("{page}/login?code={code}"),
                    expires_in_ms: u64::try_from(links.life().as_millis()).unwrap_or(u64::MAX),
                })
            }
            None => Err(Error::new(
                ErrorCode::Unavailable,
                "no browser can reach this server: it listens on no TCP address",
            )
            .hint("start one that does: pinfold up")),
        };
        call.end(made).await
    }

    /// Ends every browser session of the caller's principal.
    pub async fn end_logins(&self, grant: Grant<ops::LoginEnd>) -> Result<EndedLogins> {
        let call = self.enter(grant)?;
        let principal = call.caller().principal().id();
        let ended = self.access().identity().end_browsers(principal, Timestamp::now()).await;
        call.end_with(ended.map(|tokens| EndedLogins { tokens }), |ended| {
            ended.tokens.iter().map(ToString::to_string).collect()
        })
        .await
    }

    /// Counts one more try of a visitor to log in, or refuses it.
    pub async fn count_login(&self, visitor: &Visitor) -> Result<()> {
        self.access().rates().take_login(visitor.address, Timestamp::now()).await
    }

    /// Uses a link up, and gives the text of the browser's token.
    ///
    /// # Errors
    /// In the same words whatever is wrong with the code; 429 for who comes too often.
    pub async fn sign_in(&self, code: &str, visitor: &Visitor) -> Result<NewToken> {
        self.inner.events.audit().healthy()?;
        self.count_login(visitor).await?;
        let now = Timestamp::now();
        let access = self.access();
        // Counted before the link is used up by somebody who comes too often.
        if let Ok(person) = access.links().holder(code) {
            let owner = person.class() == CredentialClass::Peer;
            access.rates().take(person.id(), owner, RateClass::Login, now).await?;
        }
        let person = access.links().redeem(code).and_then(|person| {
            let ended = access.ended(&person).is_cancelled();
            let refused = || unauthenticated("the credential of a login link has ended");
            if ended { Err(refused()) } else { Ok(person) }
        });
        let person = match person {
            Ok(person) => person,
            Err(error) => {
                self.inner.events.turned_away("login.failed", visitor, &error);
                return Err(error);
            }
        };
        let made = access.identity().sign_in(&person, access.login(), now).await?;
        let event = self.inner.events.security("login.done", visitor, |event| {
            event.principal = person.id().to_string();
            event.credential = Some(made.info.fingerprint.clone());
            event.made = vec![made.info.id.to_string()];
        });
        event.await?;
        Ok(made)
    }

    /// Ends the browser session of a caller, or all of its principal's. Gives how many ended.
    pub async fn sign_out(&self, caller: &Caller, everywhere: bool) -> Result<usize> {
        let principal = caller.principal();
        let Some(token) =
            principal.token().filter(|_| principal.class() == CredentialClass::Browser)
        else {
            return Ok(0);
        };
        let (identity, now) = (self.access().identity(), Timestamp::now());
        let mut ended = identity.revoke(token, now).await?;
        if everywhere {
            ended.extend(identity.end_browsers(principal.id(), now).await?);
        }
        let visitor = Visitor::of(caller);
        let event = self.inner.events.security("login.ended", &visitor, |event| {
            event.principal = principal.id().to_string();
            event.credential = principal.fingerprint().map(str::to_owned);
            event.made = ended.iter().map(ToString::to_string).collect();
        });
        event.await?;
        Ok(ended.len())
    }
}

impl Visitor {
    /// Of a request over HTTP, from this address.
    pub const fn new(address: Option<std::net::IpAddr>, request: RequestId) -> Self {
        Self { address, request }
    }

    pub(crate) fn of(caller: &Caller) -> Self {
        Self { address: caller.peer(), request: caller.request() }
    }
}
