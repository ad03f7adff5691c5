//! Callers. A [`Principal`] is made by an authenticator of this room, never from a request.

use pinfold_types::PrincipalId;

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
}

/// A caller that has been recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    id: PrincipalId,
    kind: PrincipalKind,
}

impl Principal {
    pub(crate) fn owner(uid: u32) -> Self {
        Self { id: owner_id(uid), kind: PrincipalKind::Owner { uid } }
    }

    /// Stable id, for events and logs.
    pub const fn id(&self) -> PrincipalId {
        self.id
    }

    /// What kind of caller.
    pub const fn kind(&self) -> PrincipalKind {
        self.kind
    }
}

/// The same id for the same uid, at every start: the uid in the digits of ids.
fn owner_id(uid: u32) -> PrincipalId {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let digits: String = (0..26_u32)
        .rev()
        .map(|place| {
            let digit = if place < 7 { (uid >> (place * 5)) & 31 } else { 0 };
            char::from(DIGITS[usize::try_from(digit).expect("five bits fit")])
        })
        .collect();
    format!("usr_{digits}").parse().expect("26 known digits are an id")
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
}
