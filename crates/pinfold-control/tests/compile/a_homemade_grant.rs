//! E0451
use pinfold_auth::{Grant, ObjectRef, Principal, ops};

pub fn call(principal: Principal) -> Grant<ops::WorkspaceDestroy> {
    Grant {
        principal,
        object: ObjectRef::workspace("a"),
        rule: "mine",
        operation: std::marker::PhantomData,
    }
}
