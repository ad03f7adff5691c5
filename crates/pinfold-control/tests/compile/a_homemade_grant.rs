//! E0451
use pinfold_auth::{Caller, Grant, ObjectRef, ops};

pub fn call(caller: Caller) -> Grant<ops::WorkspaceDestroy> {
    Grant {
        caller,
        object: ObjectRef::workspace("a"),
        rule: "mine",
        owner: None,
        operation: std::marker::PhantomData,
    }
}
