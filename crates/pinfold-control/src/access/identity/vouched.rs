//! People for whom an external provider vouches, and its tokens for them.
//!
//! A person is a token of the class `oidc`, which has no text: it is listed and revoked like any
//! other, and says what the provider's tokens may do at most. Each of those is recorded when it is
//! first shown and has been verified; from then on it is a token like any other that was made with
//! the person's.

use std::sync::Arc;

use jiff::Timestamp;
use pinfold_auth::{Authority, CredentialClass, ForeignToken, ScopeSet, unauthenticated};
use pinfold_store::Change;
use pinfold_types::{Error, ErrorCode, Result, TokenId, access::TokenInfo, name::excerpt};

use super::{
    Identity, Tables,
    record::{Entry, TokenBody, VouchedBody, entry, info},
};

/// Most tokens of a provider for one person that are known at once.
const MOST_OF_ONE: usize = 64;

/// What a provider's token says, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// The client that it was given to.
    pub(crate) client: String,
    pub(crate) scopes: ScopeSet,
    pub(crate) expires_at: Timestamp,
}

/// What is known of a provider's token before it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was shown before, and this provider gave it.
    Yes,
    /// It was shown before, when another provider was configured.
    OfAnother,
    /// It was not.
    No,
}

impl Identity {
    /// Whether a provider's token was verified already.
    pub(crate) fn knows(&self, token: ForeignToken<'_>, issuer: &str) -> Known {
        let (id, _) = self.authenticator.foreign(token);
        let tables = self.read();
        let of = tables.tokens.get(&id).and_then(|entry| entry.body.vouched.as_ref());
        match of {
            Some(of) if of.issuer == issuer => Known::Yes,
            Some(_) => Known::OfAnother,
            None => Known::No,
        }
    }

    /// What is recorded of somebody whom nobody has named yet.
    pub(super) fn nobody_yet(
        &self,
        subject: &str,
        issuer: Option<&str>,
        now: Timestamp,
    ) -> Result<VouchedBody> {
        let conflict = |why: String| Error::new(ErrorCode::Conflict, why);
        let Some(issuer) = issuer else {
            return Err(conflict("there is no provider that could vouch for a subject".into())
                .hint("set oidc.issuer and oidc.resource: docs/login.md"));
        };
        if let Some((id, _)) = person(&self.read(), issuer, subject, now) {
            let subject = excerpt(subject);
            return Err(conflict(format!("{subject:?} is token {id} already"))
                .hint(format!("pinfold token revoke {id}")));
        }
        Ok(VouchedBody { issuer: issuer.into(), subject: subject.into(), client: None })
    }

    /// Records a provider's token that was verified, for the person that it speaks of.
    ///
    /// # Errors
    /// `unauthenticated` when nobody here is that person.
    pub(crate) async fn vouch(
        &self,
        token: ForeignToken<'_>,
        says: Vouched,
        now: Timestamp,
    ) -> Result<TokenInfo> {
        let (id, hash) = self.authenticator.foreign(token);
        // Whoever shows the same one meanwhile waits here, and finds it.
        let _vouching = self.vouching.lock().await;
        let (body, gone) = {
            let mut tables = self.write();
            if let Some(known) = tables.tokens.get(&id) {
                return Ok(info(known, &tables));
            }
            let Some((parent, person)) = person(&tables, &says.issuer, &says.subject, now) else {
                let subject = excerpt(&says.subject);
                return Err(unauthenticated(&format!(
                    "{subject:?} of the provider is nobody here"
                )));
            };
            let authority = Authority {
                scopes: person.record.authority.scopes.and(&says.scopes),
                ..person.record.authority.clone()
            };
            let principal = person.body.principal;
            let body = TokenBody {
                name: person.body.name.clone(),
                maker: person.body.maker,
                parent: Some(parent),
                session: person.body.session,
                expires_at: person.body.expires_at.into_iter().chain([says.expires_at]).min(),
                vouched: Some(VouchedBody {
                    issuer: says.issuer,
                    subject: says.subject,
                    client: Some(says.client),
                }),
                ..TokenBody::new(CredentialClass::Mcp, &hash, principal, authority, now)
            };
            (body, make_room(&mut tables, parent, now)?)
        };
        self.store.apply(gone).await?;
        self.admit(entry(id, body)?, None, now).await
    }
}

/// The person with this name at a provider.
fn person<'a>(
    tables: &'a Tables,
    issuer: &str,
    subject: &str,
    now: Timestamp,
) -> Option<(TokenId, &'a Arc<Entry>)> {
    let found = tables.tokens.iter().find(|(_, entry)| {
        let of = entry.body.vouched.as_ref();
        entry.body.class == CredentialClass::Oidc
            && of.is_some_and(|of| of.issuer == issuer && of.subject == subject)
            && entry.stands(now)
    });
    found.map(|(id, entry)| (*id, entry))
}

/// Forgets the tokens of a person that are over, and when there are many the one that ends next.
/// One that was revoked is kept until its end: it could be shown again.
fn make_room(tables: &mut Tables, person: TokenId, now: Timestamp) -> Result<Vec<Change>> {
    let of = tables.tokens.iter().filter(|(_, entry)| entry.body.parent == Some(person));
    let own: Vec<_> = of.map(|(id, entry)| (*id, Arc::clone(entry))).collect();
    let over = |entry: &Entry| entry.body.expires_at.is_some_and(|end| end <= now);
    let mut gone: Vec<_> = own.iter().filter(|(_, entry)| over(entry)).cloned().collect();
    if own.len() - gone.len() >= MOST_OF_ONE {
        let standing = own.iter().filter(|(_, entry)| entry.stands(now));
        let next = standing.min_by_key(|(_, entry)| entry.body.expires_at).cloned();
        gone.push(next.ok_or_else(|| {
            let full = format!("{MOST_OF_ONE} revoked tokens of this person have not ended yet");
            Error::new(ErrorCode::QuotaExceeded, full).hint("come back when they have")
        })?);
    }
    Ok(gone.into_iter().map(|(id, _)| tables.forget(id)).collect())
}
