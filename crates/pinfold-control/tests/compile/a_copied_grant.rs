//! E0277
use pinfold_auth::{Grant, ops};

fn copy<T: Clone>(value: &T) -> T {
    value.clone()
}

pub fn call(grant: &Grant<ops::WorkspaceDestroy>) -> Grant<ops::WorkspaceDestroy> {
    copy::<Grant<ops::WorkspaceDestroy>>(grant)
}
