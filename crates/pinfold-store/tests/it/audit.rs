//! The audit log from outside.

mod basics;
mod sample;
