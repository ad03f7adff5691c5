//! The service from outside: what it asks, checks, counts and records.

mod compile;
mod recorder;
mod service;
