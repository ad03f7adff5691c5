//! Callers. A [`Principal`] is made by an authenticator of this room, never from a request.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use pinfold_types::{PrincipalId, SessionId, TokenId, WorkspaceId, access::Reach, id};

use crate::{CredentialClass, OperationInfo, ScopeSet, TokenRecord};

/// Who is at the other end of a unix socket, as the kernel says (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Effective user id of the process that connected.
    pub uid: u32,
}

/// What kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// The user who runs the server, or root, over the unix socket.
    Owner {
        /// The caller's own uid: the owner's, or 0.
        uid: u32,
    },
    /// Somebody who presented a token.
    Token,
    /// A program inside this workspace, with that workspace's token.
    Workspace(WorkspaceId),
}

impl PrincipalKind {
    /// The kind in a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner { .. } => "owner",
            Self::Token => "token",
            Self::Workspace(_) => "workspace",
        }
    }
}

/// What a credential may, whoever holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Rights.
    pub scopes: ScopeSet,
    /// Which objects.
    pub reach: Reach,
    /// Only these workspaces and their snapshots.
    pub workspaces: Option<BTreeSet<WorkspaceId>>,
    /// Only these operations, by name.
    pub operations: Option<&'static [&'static str]>,
}

impl Authority {
    /// Everything on everything.
    pub fn all() -> Self {
        Self { scopes: ScopeSet::all(), reach: Reach::All, workspaces: None, operations: None }
    }

    /// Whether it has the right to an operation, whatever the object.
    pub fn has(&self, operation: &OperationInfo) -> bool {
        let listed = self.operations.is_none_or(|names| names.contains(&operation.name));
        listed && self.scopes.allows(operation.scope)
    }

    /// Whether `other` may nothing that this one may not (PF-01).
    pub fn covers(&self, other: &Self) -> bool {
        let bound = match (&self.workspaces, &other.workspaces) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => theirs.is_subset(mine),
        };
        let listed = match (self.operations, other.operations) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => theirs.iter().all(|name| mine.contains(name)),
        };
        let reach = self.reach == Reach::All || other.reach == Reach::Own;
        self.scopes.covers(&other.scopes) && reach && bound && listed
    }
}

/// A caller that has been recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    id: PrincipalId,
    name: String,
    kind: PrincipalKind,
    class: CredentialClass,
    token: Option<TokenId>,
    fingerprint: Option<String>,
    expires_at: Option<Timestamp>,
    session: Option<SessionId>,
    grant: Option<String>,
    authority: Authority,
}

impl Principal {
    pub(crate) fn owner(uid: u32) -> Self {
        let inner = Inner {
            id: owner_id(uid),
            name: if uid == 0 { "root".into() } else { format!("uid {uid}") },
            kind: PrincipalKind::Owner { uid },
            class: CredentialClass::Peer,
            token: None,
            fingerprint: None,
            expires_at: None,
            session: None,
            grant: None,
            authority: Authority::all(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whom a token stands for.
    pub(crate) fn of_token(record: &TokenRecord) -> Self {
        let inner = Inner {
            id: record.principal,
            name: record.name.clone(),
            kind: record.workspace.map_or(PrincipalKind::Token, PrincipalKind::Workspace),
            class: record.class,
            token: Some(record.id),
            fingerprint: Some(record.hash.fingerprint()),
            expires_at: record.expires_at,
            session: record.session,
            grant: record.grant.clone(),
            authority: record.authority.clone(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Stable id, for ownership, events and logs.
    pub fn id(&self) -> PrincipalId {
        self.inner.id
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What kind of caller.
    pub fn kind(&self) -> PrincipalKind {
        self.inner.kind
    }

    /// What was presented.
    pub fn class(&self) -> CredentialClass {
        self.inner.class
    }

    /// Which token was presented.
    pub fn token(&self) -> Option<TokenId> {
        self.inner.token
    }

    /// Names that token in logs.
    pub fn fingerprint(&self) -> Option<&str> {
        self.inner.fingerprint.as_deref()
    }

    /// When the credential ends.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.inner.expires_at
    }

    /// The only session that the credential may be used in.
    pub fn session(&self) -> Option<SessionId> {
        self.inner.session
    }

    /// What a client of MCP over HTTP was granted: tokens that follow each other have it in common,
    /// and those of two clients do not.
    pub fn grant(&self) -> Option<&str> {
        self.inner.grant.as_deref()
    }

    /// What the credential may.
    pub fn authority(&self) -> &Authority {
        &self.inner.authority
    }
}

/// The same id for the same uid, at every start: the uid in the digits of ids.
pub(crate) fn owner_id(uid: u32) -> PrincipalId {
    format!("usr_{}", id::encode(u128::from(uid))).parse().expect("26 known digits are an id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_one_id_for_ever() {
        assert_eq!(owner_id(0).to_string(), format!("usr_{}", "0".repeat(26)));
        assert_eq!(owner_id(1000).to_string(), format!("usr_{}z8", "0".repeat(24)));
        assert_eq!(owner_id(u32::MAX).to_string(), format!("usr_{}3zzzzzz", "0".repeat(19)));
    }

    #[test]
    fn no_authority_covers_a_wider_one() {
        let all = Authority::all();
        let bound = Authority { workspaces: Some([WorkspaceId::generate()].into()), ..all.clone() };
        let own = Authority { reach: Reach::Own, ..all.clone() };
        let few = Authority { operations: Some(&["workspace.read"]), ..all.clone() };
        let read =
            Authority { scopes: ScopeSet::parse(["workspace:read"]).expect("one"), ..all.clone() };
        for narrow in [&bound, &own, &few, &read] {
            assert!(all.covers(narrow) && narrow.covers(narrow));
            assert!(!narrow.covers(&all), "{narrow:?}");
        }
        let other = Authority { workspaces: Some([WorkspaceId::generate()].into()), ..all.clone() };
        assert!(!bound.covers(&other));
    }
}
