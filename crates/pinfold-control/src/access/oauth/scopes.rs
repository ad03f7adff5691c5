//! What clients of MCP may be granted, and how a person is told of it.

use std::collections::BTreeMap;

use pinfold_auth::{OPERATIONS, SCOPES, ScopeSet};
use pinfold_types::{Error, ErrorCode, Result};

/// Nouns that no client is granted anything of: credentials, the audit log, backups.
const NEVER: [&str; 4] = ["token:", "login:", "audit:", "backup:"];
/// What a client that only looks needs besides rights to read.
const ALONG: [&str; 4] = ["mcp:connect", "session:whoami", "session:create", "session:end"];

/// Everything that a client can be granted.
pub fn offered() -> ScopeSet {
    let named = SCOPES.iter().filter(|scope| !NEVER.iter().any(|noun| scope.starts_with(noun)));
    ScopeSet::parse(named).expect("scopes of the table")
}

/// Those that only look.
pub fn looking() -> ScopeSet {
    let named = SCOPES.iter().filter(|scope| {
        (scope.ends_with(":read") || ALONG.contains(scope))
            && !NEVER.iter().any(|noun| scope.starts_with(noun))
    });
    ScopeSet::parse(named).expect("scopes of the table")
}

/// What a client asks for, in words of ours: words of other servers are left out, and nothing
/// means everything that it can be granted.
///
/// # Errors
/// When nothing is left of what it asks for.
pub(crate) fn asked(text: Option<&str>) -> Result<ScopeSet> {
    let text = text.unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(offered());
    }
    let known = text.split(' ').filter(|word| ScopeSet::parse([word]).is_ok()).take(256);
    // A wildcard is what it stands for today: what is added later, nobody consented to.
    let asked = ScopeSet::recorded(known).and(&offered());
    if asked.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, "none of these scopes can be granted"));
    }
    Ok(asked)
}

/// What scopes let somebody do, a sentence an operation, by noun.
pub fn in_words(scopes: &ScopeSet) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut words: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for op in OPERATIONS.iter().filter(|op| scopes.allows(op.scope)) {
        let noun = op.scope.split(':').next().unwrap_or_default();
        words.entry(noun).or_default().push(op.doc.trim());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_is_granted_what_makes_credentials() {
        for scope in ["token:create", "login:create", "audit:read", "backup:create"] {
            assert!(!offered().allows(scope) && !looking().allows(scope), "{scope}");
            let asked = asked(Some(&format!("{scope} workspace:read *"))).expect("some");
            assert!(!asked.allows(scope) && asked.allows("workspace:read"));
            assert!(super::asked(Some(scope)).is_err(), "{scope}");
        }
        assert!(offered().covers(&looking()) && !looking().allows("exec:run"));
    }

    #[test]
    fn what_is_asked_for_is_listed_by_name() {
        let all = asked(Some("*")).expect("all");
        assert!(all.patterns().all(|pattern| !pattern.contains('*')));
        assert_eq!(all, asked(None).expect("all"));
        let two = asked(Some("openid files:read offline_access exec:run")).expect("two");
        assert_eq!(two.patterns().collect::<Vec<_>>(), ["exec:run", "files:read"]);
        assert!(in_words(&two).contains_key("exec"));
    }
}
