//! E0277
use pinfold_auth::{Grant, ops};

pub fn call(text: &str) -> Grant<ops::WorkspaceDestroy> {
    serde_json::from_str(text).unwrap()
}
