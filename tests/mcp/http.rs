//! MCP over HTTP as no client would send it, and what becomes of sessions.

mod gates;
mod input;
mod life;
mod streams;
