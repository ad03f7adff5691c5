//! Real workspaces behind real walls, looked at from inside and outside. Needs root.

mod harness;
mod launch;
mod limits;
mod timing;
mod walls;
