//! The init of a workspace: reaps, starts commands, moves files, and speaks to the host over one
//! channel.
//!
//! It is PID 1 in its namespace, root there and nobody outside, under the same seccomp filter as
//! the workload. It trusts neither side: bytes from the host are bounded before they are stored,
//! and whatever the workload made (names, links, `/etc/passwd`, output) is data. It is the
//! workload's to break, in that the worst it can do is end its own workspace; it is the host's
//! wall in nothing. What it must never do is end by itself: a panic would stop every command, so
//! there is no indexing and no arithmetic here that can.
//!
//! One thread runs everything; file work that may wait goes to a few others. Born with descriptor
//! 3, the listening socket, and 4, a pipe with [`pinfold_proto::GuestConfig`] as JSON.
#![forbid(unsafe_code)]

pub mod api;
pub mod archive;
pub mod channel;
pub mod dispatch;
pub mod exec;
pub mod failure;
pub mod files;
pub mod guest;
pub mod net;
pub mod passwd;
mod start;
pub mod stats;
mod watched;

pub use start::run;
