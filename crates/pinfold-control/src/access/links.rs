//! Links that sign a browser in, once, within a few minutes. Whoever asks for one is somebody
//! already; what it opens is a session of the same rights in one browser.

use std::time::Duration;

use pinfold_auth::{Principal, unauthenticated};
use pinfold_types::{Error, ErrorCode, Result};

use super::drawn::{Drawn, Missed};

/// Most links of all principals that stand at once.
const MOST: usize = 1024;
/// Most links of one principal that stand at once.
const MOST_OF_ONE: usize = 32;
const PREFIX: &str = "pf_login_";

/// Links that stand.
#[derive(Debug)]
pub(crate) struct Links(Drawn<Principal>);

impl Links {
    pub(crate) fn new(life: Duration) -> Self {
        Self(Drawn::new(life))
    }

    /// How long a link stands.
    pub(crate) const fn life(&self) -> Duration {
        self.0.life()
    }

    /// The code of a new link for this principal.
    ///
    /// # Errors
    /// When too many stand already.
    pub(crate) fn issue(&self, person: &Principal) -> Result<String> {
        self.0.draw(PREFIX, person.clone(), |standing| {
            let own = standing.values().filter(|link| link.item.id() == person.id()).count();
            if standing.len() < MOST && own < MOST_OF_ONE {
                return Ok(());
            }
            let mut error = Error::new(
                ErrorCode::RateLimited,
                format!(
                    "{MOST_OF_ONE} login links of this caller, or {MOST} of all, stand already"
                ),
            )
            .hint("use them, or wait until they have ended");
            error.retry_after_ms = Some(30_000);
            Err(error)
        })
    }

    /// The principal that a link was made for. The link stands as before.
    ///
    /// # Errors
    /// The same for every reason: unknown, used or over.
    pub(crate) fn holder(&self, code: &str) -> Result<Principal> {
        self.0.look(code, Clone::clone).ok_or_else(|| unauthenticated("no such login link"))
    }

    /// Takes a link for good, and gives the principal that it was made for.
    ///
    /// # Errors
    /// As for [`Links::holder`].
    pub(crate) fn redeem(&self, code: &str) -> Result<Principal> {
        self.0.take(code).map_err(|missed| {
            unauthenticated(match missed {
                Missed::Unknown => "no such login link",
                Missed::Over => "a login link that is over",
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use pinfold_auth::{Authenticator, PeerCredentials, TokenKey};

    use super::*;

    fn owner() -> Principal {
        let authenticator = Authenticator::new(7, TokenKey::new([1; 32]));
        authenticator.peer(PeerCredentials { uid: 7 }).expect("the owner")
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_for_one_browser_and_for_a_while() {
        let links = Links::new(Duration::from_mins(5));
        let refused = |code: &str| {
            assert!(links.holder(code).is_err());
            links.redeem(code).expect_err("refused")
        };
        let code = links.issue(&owner()).expect("a link");
        assert!(code.starts_with(PREFIX) && code.len() > 50, "{}", code.len());
        assert_eq!(links.holder(&code).expect("somebody").id(), owner().id());
        let person = links.redeem(&code).expect("it was not used up by that");
        assert_eq!(person.id(), owner().id());
        let again = refused(&code);
        let late = links.issue(&owner()).expect("a link");
        tokio::time::advance(Duration::from_mins(5)).await;
        for other in [refused(&late), refused("pf_login_x"), refused("")] {
            assert_eq!((other.code, other.message), (again.code, again.message.clone()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn links_are_counted_and_make_room_when_they_end() {
        let links = Links::new(Duration::from_mins(5));
        for _ in 0..MOST_OF_ONE {
            links.issue(&owner()).expect("a link");
        }
        assert_eq!(links.issue(&owner()).expect_err("too many").code, ErrorCode::RateLimited);
        tokio::time::advance(Duration::from_mins(5)).await;
        links.issue(&owner()).expect("there is room again");
    }
}
