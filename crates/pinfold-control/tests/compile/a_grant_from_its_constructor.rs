//! E0624
use pinfold_auth::{Grant, ObjectRef, Principal, ops};

pub fn call(principal: Principal) -> Grant<ops::WorkspaceDestroy> {
    Grant::new(principal, ObjectRef::workspace("a"), "mine")
}
