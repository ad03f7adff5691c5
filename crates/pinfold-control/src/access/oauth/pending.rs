//! Requests that a consent page shows, until its reader answers. What was shown is what is granted:
//! the answer brings nothing but a number that was drawn for this page and this browser.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pinfold_auth::ScopeSet;
use pinfold_types::{Error, Result, TokenId};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Client;

/// How long a page waits for its answer.
const LIFE: Duration = Duration::from_mins(10);
/// Most pages of one browser that wait at once; the oldest make way.
const MOST_OF_ONE: usize = 16;
/// Most pages that wait at once.
const MOST: usize = 1024;

/// What a client asks for, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Who asks.
    pub client: Client,
    /// Where the answer goes; one of the client's.
    pub redirect: String,
    /// What the client wants to see again.
    pub state: Option<String>,
    /// SHA-256 of what it will show (RFC 7636).
    pub challenge: String,
    /// What the tokens are for (RFC 8707).
    pub resource: String,
    /// What it asks for.
    pub scopes: ScopeSet,
    /// As whom we answer (RFC 9207).
    pub issuer: String,
}

/// Pages that wait, by the hash of their number.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<[u8; 32], Page>>);

#[derive(Debug)]
struct Page {
    browser: TokenId,
    wish: Wish,
    ends: Instant,
}

impl Waiting {
    /// Draws the number of a page that this browser is shown.
    pub(crate) fn ask(&self, browser: TokenId, wish: Wish) -> Result<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|error| Error::internal(format!("no random bytes: {error}")))?;
        let number = data_encoding::BASE64URL_NOPAD.encode(&random);
        let now = Instant::now();
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|_, page| page.ends > now);
        let oldest = |pages: &HashMap<[u8; 32], Page>, of: Option<TokenId>| {
            let own = pages.iter().filter(|(_, page)| of.is_none_or(|of| page.browser == of));
            own.min_by_key(|(_, page)| page.ends).map(|(key, _)| *key)
        };
        let own = pages.values().filter(|page| page.browser == browser).count();
        let full = if own >= MOST_OF_ONE { Some(Some(browser)) } else { None };
        let full = full.or((pages.len() >= MOST).then_some(None));
        if let Some(key) = full.and_then(|of| oldest(&pages, of)) {
            pages.remove(&key);
        }
        pages.insert(digest(&number), Page { browser, wish, ends: now + LIFE });
        Ok(number)
    }

    /// What the page with this number showed, once, if it is this browser's.
    pub(crate) fn answer(&self, browser: TokenId, number: &str) -> Option<Wish> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = digest(number);
        let own = pages.get(&key).is_some_and(|page| page.browser == browser);
        let page = own.then(|| pages.remove(&key)).flatten()?;
        (page.ends > Instant::now()).then_some(page.wish)
    }
}

fn digest(number: &str) -> [u8; 32] {
    Sha256::digest(number.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish {
            client: Client {
                id: "c".into(),
                name: "C".into(),
                host: None,
                redirects: vec!["http://localhost/cb".into()],
            },
            redirect: "http://localhost:5/cb".into(),
            state: None,
            challenge: "x".into(),
            resource: "http://localhost:7070/mcp".into(),
            scopes: ScopeSet::all(),
            issuer: "http://localhost:7070".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_answered_once_by_its_own_browser_in_time() {
        let (waiting, me, other) = (Waiting::default(), TokenId::generate(), TokenId::generate());
        let number = waiting.ask(me, wish()).expect("a number");
        assert_eq!(waiting.answer(other, &number), None, "another browser");
        assert_eq!(waiting.answer(me, "guess"), None);
        assert_eq!(waiting.answer(me, &number), Some(wish()));
        assert_eq!(waiting.answer(me, &number), None, "twice");
        let late = waiting.ask(me, wish()).expect("a number");
        tokio::time::advance(LIFE).await;
        assert_eq!(waiting.answer(me, &late), None);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_bounded_for_each_browser() {
        let (waiting, me, other) = (Waiting::default(), TokenId::generate(), TokenId::generate());
        let theirs = waiting.ask(other, wish()).expect("a number");
        let mut mine = Vec::new();
        for _ in 0..=MOST_OF_ONE {
            mine.push(waiting.ask(me, wish()).expect("a number"));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(waiting.answer(me, &mine[0]), None, "the oldest made way");
        assert!(waiting.answer(me, &mine[1]).is_some());
        assert!(waiting.answer(other, &theirs).is_some(), "and nobody else's");
    }
}
