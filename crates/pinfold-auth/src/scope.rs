//! What a credential may: scopes, as patterns and as the set that they stand for.

use std::{collections::BTreeSet, fmt, sync::LazyLock};

use pinfold_types::{Error, ErrorCode, Result, access::MAX_SCOPES, name::excerpt};

use crate::OPERATIONS;

/// What a terminal needs beside the scope of the operation that opens it (AX-12).
pub const TERMINAL: &str = "exec:terminal";

/// Every scope there is, sorted.
pub static SCOPES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let all: BTreeSet<&str> =
        OPERATIONS.iter().map(|op| op.scope).chain(std::iter::once(TERMINAL)).collect();
    all.into_iter().collect()
});

/// A set of scopes. It keeps the patterns that it was made of, so that `*` also means what a later
/// version adds.
#[derive(Clone, PartialEq, Eq)]
pub struct ScopeSet {
    patterns: BTreeSet<String>,
    /// A bit for each of [`SCOPES`].
    bits: u128,
}

impl ScopeSet {
    /// Everything.
    pub fn all() -> Self {
        Self::parse(["*"]).expect("a constant")
    }

    /// Of `noun:right`, `noun:*` and `*`. A pattern that means nothing is an error that names it.
    pub fn parse<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut set = Self { patterns: BTreeSet::new(), bits: 0 };
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let bits = expand(pattern);
            if bits == 0 {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("there is no scope {:?}", excerpt(pattern)),
                )
                .hint(format!("scopes are {}, a noun with :*, or *", SCOPES.join(", "))));
            }
            set.bits |= bits;
            set.patterns.insert(pattern.to_owned());
        }
        if set.patterns.len() > MAX_SCOPES {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("more than {MAX_SCOPES} scopes"),
            ));
        }
        Ok(set)
    }

    /// Of recorded patterns. One that this version does not know allows nothing.
    pub fn recorded<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        let mut set = Self { patterns: BTreeSet::new(), bits: 0 };
        for pattern in patterns {
            set.bits |= expand(pattern.as_ref());
            set.patterns.insert(pattern.as_ref().to_owned());
        }
        set
    }

    /// Whether it has this scope.
    pub fn allows(&self, scope: &str) -> bool {
        place(scope).is_some_and(|place| self.bits & (1 << place) != 0)
    }

    /// Whether `other` has nothing that this one lacks, now or with a scope that is added later.
    pub fn covers(&self, other: &Self) -> bool {
        let kept = |pattern: &String| {
            let noun = pattern.split(':').next().unwrap_or_default();
            // A wildcard needs a wildcard as wide: what it will mean is not known yet.
            !pattern.ends_with('*')
                || self.patterns.contains("*")
                || (pattern != "*" && self.patterns.contains(&format!("{noun}:*")))
        };
        self.bits | other.bits == self.bits && other.patterns.iter().all(kept)
    }

    /// The scopes of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let bits = self.bits & other.bits;
        let named = SCOPES.iter().enumerate().filter(|(place, _)| bits & (1 << place) != 0);
        Self { patterns: named.map(|(_, scope)| (*scope).to_owned()).collect(), bits }
    }

    /// The patterns, sorted.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(String::as_str)
    }

    /// The patterns as a list, sorted, as they are recorded and listed.
    pub fn names(&self) -> Vec<String> {
        self.patterns.iter().cloned().collect()
    }

    /// Whether nothing is allowed.
    pub const fn is_empty(&self) -> bool {
        self.bits == 0
    }
}

/// With spaces between (RFC 6749 §3.3).
impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, pattern) in self.patterns().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{pattern}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.patterns()).finish()
    }
}

fn place(scope: &str) -> Option<usize> {
    SCOPES.binary_search(&scope).ok()
}

fn expand(pattern: &str) -> u128 {
    let matches = |scope: &str| match pattern.strip_suffix('*') {
        Some("") => true,
        Some(noun) => noun.ends_with(':') && scope.starts_with(noun),
        None => scope == pattern,
    };
    SCOPES
        .iter()
        .enumerate()
        .filter(|(_, scope)| matches(scope))
        .fold(0, |bits, (place, _)| bits | (1 << place))
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::subsequence};

    use super::*;

    #[test]
    fn all_scopes_fit_the_set() {
        assert!(SCOPES.len() <= 128, "{}", SCOPES.len());
        let all = ScopeSet::all();
        assert!(SCOPES.iter().all(|scope| all.allows(scope)));
        assert!(!all.allows("made:up"));
    }

    #[test]
    fn patterns_are_exact() {
        for bad in
            ["", "**", "work*", "workspace", "workspace:", ":*", "workspace:**", "*:read", " *"]
        {
            assert!(ScopeSet::parse([bad]).is_err(), "{bad:?}");
        }
        let files = ScopeSet::parse(["files:*"]).expect("a noun");
        assert!(files.allows("files:read") && files.allows("files:raw"));
        assert!(!files.allows("workspace:read"));
    }

    #[test]
    fn a_list_of_all_rights_is_narrower_than_the_wildcard() {
        let wildcard = ScopeSet::parse(["files:*"]).expect("a noun");
        let listed =
            ScopeSet::parse(SCOPES.iter().filter(|s| s.starts_with("files:"))).expect("all");
        assert!(wildcard.covers(&listed) && !listed.covers(&wildcard));
        assert!(ScopeSet::all().covers(&wildcard) && !wildcard.covers(&ScopeSet::all()));
    }

    proptest! {
        #[test]
        fn whoever_covers_allows(a in subsequence(SCOPES.clone(), 0..SCOPES.len()),
                                 b in subsequence(SCOPES.clone(), 0..SCOPES.len())) {
            let (a, b) = (ScopeSet::parse(a).expect("a"), ScopeSet::parse(b).expect("b"));
            let narrower = SCOPES.iter().all(|scope| a.allows(scope) || !b.allows(scope));
            prop_assert_eq!(a.covers(&b), narrower);
            let both = a.and(&b);
            prop_assert!(a.covers(&both) && b.covers(&both));
        }
    }
}
