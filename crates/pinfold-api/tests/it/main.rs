//! The API over a real unix socket, with a node that only says what it was asked.

mod bad_input;
mod coverage;
mod idempotency;
mod login;
mod node;
mod oauth;
mod raw_socket;
mod remote;
mod server;
mod site;
mod streams;
mod tcp;
mod web;
mod ws;
