//! The node on the real backend, as root, each test in a home of its own.

mod build;
mod channel;
mod fork;
mod house;
mod lifecycle;
mod limits;
mod logs;
mod ready;
mod recovery;
mod sealed;
mod snapshot;
mod throw_away;
