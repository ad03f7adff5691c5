//! E0624
use pinfold_auth::{Caller, Grant, ObjectRef, ops};

pub fn call(caller: Caller) -> Grant<ops::WorkspaceDestroy> {
    Grant::new(caller, ObjectRef::workspace("a"), "mine", None)
}
