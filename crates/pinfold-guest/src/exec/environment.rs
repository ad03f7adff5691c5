//! Environment of commands: in memory only, wiped when it is replaced (AUTH-09).

use std::{collections::BTreeMap, fmt};

use pinfold_proto::API_SOCKET;
use pinfold_types::{Error, exec::check_env};
use zeroize::Zeroizing;

use crate::passwd::Identity;

/// Where programs are looked for when nobody says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names and values that every command starts with.
#[derive(Default)]
pub struct Environment {
    given: BTreeMap<String, Zeroizing<String>>,
    /// Under names that nobody else can set: what begins with `PINFOLD_` is on the block-list.
    token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.given.len())
    }
}

impl Environment {
    /// From the configuration. What the block-list forbids is left out: it comes from images, and
    /// a workspace must not fail to start over it.
    pub fn new(given: BTreeMap<String, String>, token: Option<String>) -> Self {
        let fine = |(name, value): (String, String)| {
            let value = Zeroizing::new(value);
            let one = BTreeMap::from([(name.clone(), String::clone(&value))]);
            check_env(&one).is_ok().then_some((name, value))
        };
        Self {
            given: given.into_iter().filter_map(fine).collect(),
            token: token.map(Zeroizing::new),
        }
    }

    /// Replaces all that was given; the token stays.
    ///
    /// # Errors
    /// What [`check_env`] refuses; nothing changes then.
    pub fn replace(&mut self, given: BTreeMap<String, String>) -> Result<(), Error> {
        check_env(&given)?;
        self.given = given.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect();
        Ok(())
    }

    /// The whole environment of one command: what a login would set, then the workspace's, then
    /// its own.
    pub fn compose<'a>(
        &'a self,
        who: &'a Identity,
        hostname: &'a str,
        terminal: bool,
        own: &'a BTreeMap<String, String>,
    ) -> BTreeMap<&'a str, &'a str> {
        let mut all = BTreeMap::from([
            ("PATH", DEFAULT_PATH),
            ("LANG", "C.UTF-8"),
            ("HOME", who.home.as_str()),
            ("USER", who.name.as_str()),
            ("LOGNAME", who.name.as_str()),
            ("SHELL", who.shell.as_str()),
        ]);
        if !hostname.is_empty() {
            all.insert("HOSTNAME", hostname);
        }
        if terminal {
            all.insert("TERM", "xterm-256color");
        }
        all.extend(self.given.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.extend(own.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if let Some(token) = &self.token {
            all.extend([("PINFOLD_TOKEN", token.as_str()), ("PINFOLD_SOCKET", API_SOCKET)]);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passwd::Accounts;

    #[test]
    fn later_layers_win_and_the_block_list_holds_in_each() {
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let mut environment = Environment::new(
            text(&[("PATH", "/image"), ("LD_PRELOAD", "/x"), ("A", "1")]),
            Some("pf_ws_x".into()),
        );
        let who = Accounts::default().find("root").expect("always");
        let own = text(&[("A", "2")]);
        let all = environment.compose(&who, "box", true, &own);
        assert_eq!(
            (all["PATH"], all["A"], all["HOME"], all["HOSTNAME"]),
            ("/image", "2", "/root", "box")
        );
        assert!(!all.contains_key("LD_PRELOAD"));
        assert_eq!((all["PINFOLD_TOKEN"], all["PINFOLD_SOCKET"]), ("pf_ws_x", API_SOCKET));
        assert!(environment.replace(text(&[("BASH_ENV", "/x")])).is_err());
        assert!(environment.replace(text(&[("PINFOLD_TOKEN", "mine")])).is_err());
        environment.replace(text(&[("B", "3")])).expect("allowed");
        let own = BTreeMap::new();
        let all = environment.compose(&who, "", false, &own);
        assert_eq!((all.get("A"), all["B"], all.get("TERM")), (None, "3", None));
    }
}
