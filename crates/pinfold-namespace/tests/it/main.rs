//! Real workspaces behind real walls, looked at from inside and outside. Needs root.

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
