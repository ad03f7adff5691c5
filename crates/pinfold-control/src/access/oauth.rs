//! The authorization server for MCP over HTTP: which clients there are, where they may be sent
//! back to, what they may ask for, and what waits for a person's answer. What is granted is kept
//! with the tokens (`identity/granted.rs`).

pub(crate) mod clients;
pub(crate) mod documents;
pub(crate) mod pending;
pub(crate) mod redirect;
pub(crate) mod scopes;

use pinfold_store::Store;
use pinfold_types::{
    PrincipalId, Result,
    config::{ANYBODY, OWNER, OauthConfig},
};

use self::{clients::Clients, documents::Documents, pending::Waiting};
use super::outside::Outside;

/// What the authorization server works with.
#[derive(Debug)]
pub(crate) struct Oauth {
    pub(crate) config: OauthConfig,
    pub(crate) clients: Clients,
    pub(crate) documents: Documents,
    pub(crate) waiting: Waiting,
    owner: PrincipalId,
}

impl Oauth {
    pub(crate) async fn open(
        config: OauthConfig,
        owner: PrincipalId,
        store: Store,
    ) -> Result<Self> {
        let outside = Outside::new(&config.hosts);
        Ok(Self {
            clients: Clients::open(store).await?,
            documents: Documents::new(outside),
            waiting: Waiting::default(),
            owner,
            config,
        })
    }

    /// Whether this one may let clients in. Names say nothing here: whoever makes a token chooses
    /// its name.
    pub(crate) fn allows(&self, principal: PrincipalId) -> bool {
        self.config.allowed.iter().any(|who| match who.as_str() {
            ANYBODY => true,
            OWNER => principal == self.owner,
            id => id.parse() == Ok(principal),
        })
    }
}

/// A client, however it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its id: ours, or the URL of its document.
    pub id: String,
    /// What it calls itself. Anybody may call themselves anything.
    pub name: String,
    /// Where its document is from; absent for one that registered itself.
    pub host: Option<String>,
    /// Where it may be sent back to.
    pub redirects: Vec<String>,
}

/// What a client calls itself, fit to be shown: no control characters, none that turn the
/// direction of a text or have no width, 64 characters at most.
pub(crate) fn shown_name(name: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let shown: String = name.chars().filter(|c| !hidden(*c)).take(64).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_turn_the_page_around() {
        assert_eq!(shown_name("  Claude \n Code\u{202e}\u{200b} "), "Claude Code");
        assert_eq!(shown_name("\u{0}\u{7}"), "");
        assert_eq!(shown_name(&"x".repeat(500)).len(), 64);
        assert_eq!(shown_name("<b>"), "<b>", "escaping is the page's");
    }
}
