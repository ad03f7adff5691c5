//! The control plane as its callers meet it: tokens over TCP, quotas, sessions, the audit log.

mod client;
mod events;
mod house;
mod inside;
mod matrix;
mod matrix_mcp;
mod owned;
mod tokens;
