//! Requests that a consent page shows, until its reader answers. What was shown is what is granted:
//! the answer brings nothing but a number that was drawn for this page and this browser.

use std::time::Duration;

use pinfold_auth::ScopeSet;
use pinfold_types::{Result, TokenId};

use super::Client;
use crate::access::drawn::{Drawn, Standing};

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

/// Pages that wait.
#[derive(Debug)]
pub(crate) struct Waiting(Drawn<Page>);

#[derive(Debug)]
struct Page {
    browser: TokenId,
    wish: Wish,
}

impl Default for Waiting {
    fn default() -> Self {
        Self(Drawn::new(LIFE))
    }
}

impl Waiting {
    /// Draws the number of a page that this browser is shown.
    pub(crate) fn ask(&self, browser: TokenId, wish: Wish) -> Result<String> {
        self.0.draw("", Page { browser, wish }, |pages| {
            let own = pages.values().filter(|page| page.item.browser == browser).count();
            if own >= MOST_OF_ONE {
                forget_oldest(pages, |page| page.browser == browser);
            } else if pages.len() >= MOST {
                forget_oldest(pages, |_| true);
            }
            Ok(())
        })
    }

    /// What the page with this number showed, once, if it is this browser's.
    pub(crate) fn answer(&self, browser: TokenId, number: &str) -> Option<Wish> {
        let own = self.0.look(number, |page| page.browser == browser)?;
        own.then(|| self.0.take(number).ok()).flatten().map(|page| page.wish)
    }
}

fn forget_oldest(pages: &mut Standing<Page>, of: impl Fn(&Page) -> bool) {
    let own = pages.iter().filter(|(_, page)| of(&page.item));
    if let Some(oldest) = own.min_by_key(|(_, page)| page.ends).map(|(key, _)| *key) {
        pages.remove(&oldest);
    }
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
