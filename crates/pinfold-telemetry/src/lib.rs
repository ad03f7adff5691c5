//! What the process says of itself to tools of others: CPU profiles, spans.
//!
//! Nothing here knows who may ask; listening and checking are the API's. What this room refuses to
//! say: the environment, command lines, paths, values. A profile has names of functions and of
//! threads.
#![forbid(unsafe_code)]

pub mod profile;
pub mod runtime;
pub mod spans;
