//! REST and WebSocket: parse, authenticate, call one service function, render.
//!
//! Every route is an operation of the table in `pinfold-auth`, and every operation has a route.
//! A handler gets a [`call::Call`], which exists only after the grant was given, hands it to one
//! service function and renders what comes back. What this room refuses: bodies, paths, headers
//! and frames over their limits, JSON with unknown fields, callers without a credential
//! that stands, and over TCP: names that are not the server's, pages that nobody named.
#![forbid(unsafe_code)]

mod aside;
mod authenticate;
mod body;
mod call;
mod counts;
mod docs;
mod idempotency;
mod json;
mod layers;
mod listen;
mod login;
pub mod metrics;
mod oauth;
mod open;
pub mod openapi;
pub mod problem;
pub mod profiling;
mod range;
mod reply;
mod routes;
mod site;
mod sse;
mod streams;
mod upgrade;
pub mod ws;

pub use listen::{Activity, Doorstep, Inside, Peer, Server, Tcp};
pub use metrics::Metrics;
pub use open::OPEN;
pub use problem::{PROBLEM_JSON, Problem};
pub use routes::{
    mcp::{McpAnswer, McpConnect, McpHttp, McpStream, with_mcp},
    routed, router,
};
pub use site::{Site, Watchman};
pub use upgrade::Streams;
