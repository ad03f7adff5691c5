//! The only outgoing client: parse, resolve, classify, dial what was checked.
//!
//! A destination passes these gates in order, again at every redirect:
//!
//! 1. [`Target::parse`] reads the URL once; everything later uses that one reading.
//! 2. The name is refused when it can only mean something near ([`names`]).
//! 3. The name is resolved and *every* answer must be ordinary public unicast ([`addresses`]).
//! 4. One of the checked addresses is dialled, and the peer is compared after the connect.
//! 5. TLS is spoken to the name that was parsed, unless the operator excepted the destination.
//!
//! There is no connection pool to confuse, no proxy from the environment, no cookie, no
//! transparent decompression. What the operator allows beyond the rule is an exact `host:port`.
//!
//! ```
//! use pinfold_egress::{Target, addresses::classify};
//! assert!(Target::parse("https://example.com/x").is_ok());
//! assert!(Target::parse("https://user:pass@example.com/").is_err());
//! assert!(!classify("::ffff:127.0.0.1".parse().unwrap()).is_public());
//! ```
#![forbid(unsafe_code)]

pub mod addresses;
mod client;
mod config;
mod dial;
mod error;
pub mod names;
pub mod operator;
mod resolve;
mod target;
mod tls;

pub use client::{Body, Client, Limits, Response};
pub use config::{EgressConfig, Exception};
pub use error::EgressError;
pub use target::{Host, Target};
