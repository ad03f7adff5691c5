//! The only outgoing client: parse, resolve, classify, dial what was checked.
#![forbid(unsafe_code)]

mod config;

pub use config::{Client, EgressConfig, Exception};
