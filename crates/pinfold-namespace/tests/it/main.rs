//! Real workspaces behind real walls, looked at from inside and outside. Needs root.
#![expect(clippy::similar_names, reason = "a launcher launches what is launched")]
#![expect(clippy::unwrap_used, reason = "a test's panic is its report")]

mod doctor;
mod harness;
mod launch;
mod limits;
mod nested;
mod timing;
mod user_mode;
mod walls;
#[cfg(feature = "weaken")]
mod weakened;
