//! The API over a real unix socket, with a node that only says what it was asked.

mod bad_input;
mod coverage;
mod idempotency;
mod node;
mod raw_socket;
mod remote;
mod server;
mod site;
mod streams;
mod tcp;
mod ws;
