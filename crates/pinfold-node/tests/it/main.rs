//! The node on the real backend, as root, each test in a home of its own.

mod house;
mod lifecycle;
