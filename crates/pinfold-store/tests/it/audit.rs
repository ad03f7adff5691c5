//! The audit log from outside: what it keeps, what it mends, and what it finds out.

mod basics;
mod crash;
mod full;
mod kill;
mod random;
mod sample;
mod tamper;
mod trace;
