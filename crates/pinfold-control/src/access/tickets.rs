//! Tickets: what a page shows once, within half a minute, to open one WebSocket, because a
//! browser lets it set no header there and a token does not belong into a URL.

use std::time::Duration;

use pinfold_auth::{Caller, unauthenticated};
use pinfold_types::{Error, ErrorCode, Result};

use super::drawn::{Drawn, Missed};

/// How long a ticket stands.
pub(crate) const LIFE: Duration = Duration::from_secs(30);
/// Most tickets of all principals that stand at once.
const MOST: usize = 4096;
/// Most tickets of one principal that stand at once.
const MOST_OF_ONE: usize = 64;
const PREFIX: &str = "pf_ticket_";

/// Tickets that stand.
#[derive(Debug)]
pub(crate) struct Tickets(Drawn<Ticket>);

#[derive(Debug)]
struct Ticket {
    caller: Caller,
    origin: Option<String>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self(Drawn::new(LIFE))
    }
}

impl Tickets {
    /// A ticket for this caller and the page that it is of; `None` when it is of none.
    ///
    /// # Errors
    /// When too many stand already.
    pub(crate) fn issue(&self, caller: &Caller, origin: Option<&str>) -> Result<String> {
        let ticket = Ticket { caller: caller.clone(), origin: origin.map(str::to_owned) };
        self.0.draw(PREFIX, ticket, |standing| {
            let id = caller.principal().id();
            let own = standing.values().filter(|of| of.item.caller.principal().id() == id).count();
            if standing.len() < MOST && own < MOST_OF_ONE {
                return Ok(());
            }
            let mut error = Error::new(
                ErrorCode::RateLimited,
                format!("{MOST_OF_ONE} tickets of this caller, or {MOST} of all, stand already"),
            )
            .hint("use them; each ends after 30 s");
            error.retry_after_ms = Some(30_000);
            Err(error)
        })
    }

    /// Takes a ticket for good, and gives the caller that it was made for.
    ///
    /// # Errors
    /// The same for every reason: unknown, used, over, or shown by another page.
    pub(crate) fn redeem(&self, text: &str, origin: Option<&str>) -> Result<Caller> {
        let ticket = self.0.take(text).map_err(|missed| {
            unauthenticated(match missed {
                Missed::Unknown => "no such ticket",
                Missed::Over => "a ticket that is over",
            })
        })?;
        if ticket.origin.as_deref() != origin {
            return Err(unauthenticated("a ticket of another page"));
        }
        Ok(ticket.caller)
    }
}

#[cfg(test)]
mod tests {
    use pinfold_auth::{Authenticator, PeerCredentials, Surface, TokenKey};

    use super::*;

    fn caller() -> Caller {
        let authenticator = Authenticator::new(7, TokenKey::new([1; 32]));
        let owner = authenticator.peer(PeerCredentials { uid: 7 }).expect("the owner");
        Caller::new(owner, Surface::Http)
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_opens_once_for_its_page_and_in_time() {
        let tickets = Tickets::default();
        let page = Some("https://app.example");
        let refused = |text: &str, origin| {
            let error = tickets.redeem(text, origin).expect_err("refused");
            assert_eq!(error.code, ErrorCode::Unauthenticated);
            (error.message, error.hint)
        };
        let used = tickets.issue(&caller(), page).expect("a ticket");
        assert!(used.starts_with(PREFIX) && used.len() > 50, "{}", used.len());
        assert_eq!(
            tickets.redeem(&used, page).expect("its first use").principal().id(),
            caller().principal().id()
        );
        let again = refused(&used, page);

        let elsewhere = tickets.issue(&caller(), page).expect("a ticket");
        let other = refused(&elsewhere, Some("https://evil.example"));
        // A wrong page has used it up.
        refused(&elsewhere, page);
        let pageless = tickets.issue(&caller(), None).expect("a ticket");
        refused(&pageless, page);

        let late = tickets.issue(&caller(), page).expect("a ticket");
        tokio::time::advance(LIFE).await;
        let over = refused(&late, page);
        let unknown = refused("pf_ticket_x", page);
        assert!([other, over, unknown].iter().all(|said| *said == again), "reasons differ");
    }

    #[tokio::test(start_paused = true)]
    async fn tickets_are_counted_and_make_room_when_they_end() {
        let tickets = Tickets::default();
        for _ in 0..MOST_OF_ONE {
            tickets.issue(&caller(), None).expect("a ticket");
        }
        let refused = tickets.issue(&caller(), None).expect_err("too many");
        assert_eq!(refused.code, ErrorCode::RateLimited);
        tokio::time::advance(LIFE).await;
        tickets.issue(&caller(), None).expect("there is room again");
    }
}
