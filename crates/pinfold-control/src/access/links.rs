//! Links that sign a browser in, once, within a few minutes. Whoever asks for one is somebody
//! already; what it opens is a session of the same rights in one browser.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pinfold_auth::{Principal, unauthenticated};
use pinfold_types::{Error, ErrorCode, PrincipalId, Result};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Most links of all principals that stand at once.
const MOST: usize = 1024;
/// Most links of one principal that stand at once.
const MOST_OF_ONE: usize = 32;
/// Random bytes in a link.
const BYTES: usize = 32;
/// What every code begins with, so that one in a log is known for what it is.
const PREFIX: &str = "pf_login_";

type Digest32 = [u8; 32];

/// Links that stand, by the hash of their code. Kept in memory alone: a restart ends them, and
/// another one is a command away.
#[derive(Debug)]
pub(crate) struct Links {
    life: Duration,
    standing: Mutex<HashMap<Digest32, Link>>,
}

#[derive(Debug)]
struct Link {
    person: Principal,
    ends: Instant,
}

impl Links {
    pub(crate) fn new(life: Duration) -> Self {
        Self { life, standing: Mutex::default() }
    }

    /// How long a link stands.
    pub(crate) const fn life(&self) -> Duration {
        self.life
    }

    /// The code of a new link for this principal.
    ///
    /// # Errors
    /// When too many stand already.
    pub(crate) fn issue(&self, person: &Principal) -> Result<String> {
        let mut random = [0; BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Error::internal(format!("no random bytes: {error}")))?;
        let code = format!("{PREFIX}{}", data_encoding::BASE64URL_NOPAD.encode(&random));
        let now = Instant::now();
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.retain(|_, link| link.ends > now);
        let of = |id: PrincipalId| standing.values().filter(|link| link.person.id() == id).count();
        if standing.len() >= MOST || of(person.id()) >= MOST_OF_ONE {
            let mut error = Error::new(
                ErrorCode::RateLimited,
                format!(
                    "{MOST_OF_ONE} login links of this caller, or {MOST} of all, stand already"
                ),
            )
            .hint("use them, or wait until they have ended");
            error.retry_after_ms = Some(30_000);
            return Err(error);
        }
        standing.insert(digest(&code), Link { person: person.clone(), ends: now + self.life });
        Ok(code)
    }

    /// The principal that a link was made for. The link stands as before.
    ///
    /// # Errors
    /// The same for every reason: unknown, used or over.
    pub(crate) fn holder(&self, code: &str) -> Result<Principal> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let link = standing.get(&digest(code)).filter(|link| link.ends > Instant::now());
        link.map(|link| link.person.clone()).ok_or_else(|| unauthenticated("no such login link"))
    }

    /// Takes a link for good, and gives the principal that it was made for.
    ///
    /// # Errors
    /// As for [`Links::holder`].
    pub(crate) fn redeem(&self, code: &str) -> Result<Principal> {
        let taken = {
            let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            standing.remove(&digest(code))
        };
        let link = taken.filter(|link| link.ends > Instant::now());
        link.map(|link| link.person).ok_or_else(|| unauthenticated("a login link that is over"))
    }
}

fn digest(code: &str) -> Digest32 {
    Sha256::digest(code.as_bytes()).into()
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
