//! Whole-system tests. Each folder beside this file is one theme with its own `main.rs`; the
//! helpers they share are in `testkit`.
#![forbid(unsafe_code)]
