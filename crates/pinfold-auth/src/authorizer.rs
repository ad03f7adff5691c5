//! The one place where a caller becomes a principal and a wish becomes a grant.

use pinfold_types::{Error, ErrorCode, Result};

use crate::{Grant, ObjectRef, Operation, PeerCredentials, Principal, PrincipalKind};

/// Decides. Everything that no rule allows is refused, always with the same words, so that a
/// refusal tells nothing about what exists.
#[derive(Clone, Debug)]
pub struct Authorizer {
    owner_uid: u32,
}

/// Root can read the owner's files and memory whatever we answer, so it is let in, under its own
/// principal: what it does is then at least written down.
const ROOT: u32 = 0;

impl Authorizer {
    /// The authorizer of a server that runs as `owner_uid`.
    pub const fn new(owner_uid: u32) -> Self {
        Self { owner_uid }
    }

    /// Recognises the process at the other end of the unix socket: the owner's, or root's.
    pub fn peer(&self, peer: PeerCredentials) -> Result<Principal> {
        if peer.uid == self.owner_uid || peer.uid == ROOT {
            Ok(Principal::owner(peer.uid))
        } else {
            Err(refused(&format!("uid {} is neither {} nor root", peer.uid, self.owner_uid)))
        }
    }

    /// Allows `principal` to do `O` on `object`, or refuses.
    pub fn authorize<O: Operation>(
        &self,
        principal: &Principal,
        object: ObjectRef,
    ) -> Result<Grant<O>> {
        let info = &O::INFO;
        if object.kind() != info.object {
            return Err(refused(&format!("{} is not for a {}", info.name, object.kind().as_str())));
        }
        let rule = match principal.kind() {
            PrincipalKind::Owner { uid } if uid == self.owner_uid => "owner",
            PrincipalKind::Owner { uid: ROOT } => "root",
            PrincipalKind::Owner { .. } => {
                return Err(refused(&format!("no rule lets {} do {}", principal.id(), info.name)));
            }
        };
        Ok(Grant::new(principal.clone(), object, rule))
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorCode::Forbidden, "this is not allowed to you")
        .hint("ask the user who runs this server; a server of your own: pinfold up")
        .context(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn the_owner_and_root_are_in_and_everybody_else_is_out() {
        let authorizer = Authorizer::new(1000);
        for uid in [1000, 0] {
            let principal = authorizer.peer(PeerCredentials { uid }).expect("in");
            assert_eq!(principal.kind(), PrincipalKind::Owner { uid });
        }
        for uid in [1, 999, 1001, 65_534, u32::MAX] {
            let refused = authorizer.peer(PeerCredentials { uid }).expect_err("out");
            assert_eq!(refused.code, ErrorCode::Forbidden);
        }
    }

    #[test]
    fn every_refusal_reads_the_same() {
        let authorizer = Authorizer::new(1000);
        let stranger = authorizer.peer(PeerCredentials { uid: 5 }).expect_err("out");
        let owner = authorizer.peer(PeerCredentials { uid: 1000 }).expect("in");
        let wrong_kind = authorizer
            .authorize::<ops::WorkspaceStop>(&owner, ObjectRef::image("debian"))
            .expect_err("not an image's operation");
        let of_another_server = Authorizer::new(1001)
            .authorize::<ops::WorkspaceStop>(&owner, ObjectRef::workspace("a"))
            .expect_err("not that server's owner");
        for refused in [&wrong_kind, &of_another_server] {
            assert_eq!(
                (refused.code, &refused.message, &refused.hint),
                (stranger.code, &stranger.message, &stranger.hint)
            );
        }
    }

    #[test]
    fn a_grant_names_who_and_what() {
        let authorizer = Authorizer::new(7);
        let owner = authorizer.peer(PeerCredentials { uid: 7 }).expect("in");
        let grant = authorizer
            .authorize::<ops::WorkspaceStop>(&owner, ObjectRef::workspace("fix-42"))
            .expect("the owner may");
        assert_eq!(grant.object().reference(), "fix-42");
        assert_eq!((grant.principal(), grant.rule()), (&owner, "owner"));
        assert!(format!("{grant:?}").contains("workspace.stop on workspace fix-42"));
    }
}
