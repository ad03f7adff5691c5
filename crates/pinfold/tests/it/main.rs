//! The real program, over homes of its own.

mod bad_input;
mod commands;
mod copy;
mod images;
mod on_demand;
mod program;
mod pty;
mod remote;
mod restart;
mod streams;
