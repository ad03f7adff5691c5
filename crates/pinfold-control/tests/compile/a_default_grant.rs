//! E0277
use pinfold_auth::{Grant, ops};

pub fn call() -> Grant<ops::WorkspaceDestroy> {
    Default::default()
}
